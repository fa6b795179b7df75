DROP TABLE visitor_record_logs;
