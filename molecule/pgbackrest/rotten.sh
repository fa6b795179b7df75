#!/bin/sh
# An object of the newest full backup that is not what it was, and is put back. The first word of each line is what is found.
cd /
value() { sed -n "s/^repo1-$1=//p" /etc/pgbackrest/pgbackrest.conf; }
s3() {
  curl --silent --show-error --fail --aws-sigv4 aws:amz:us-east-1:s3 --user "$(value s3-key):$(value s3-key-secret)" "$@"
}
path=$(value path)/backup/main/$(shipshape-pgbackrest list | awk '$4 == "full" {label = $5} END {print label}')/pg_data/PG_VERSION.lz4
object=$(value s3-endpoint)/$(value s3-bucket)$path
s3 --output /tmp/whole "https://$object" || exit 1
head -c "$(wc -c < /tmp/whole)" /dev/urandom > /tmp/rotten
s3 --upload-file /tmp/rotten "https://$object"
shipshape-pgbackrest run 2>&1
echo "status $?"
s3 --upload-file /tmp/whole "https://$object"
shipshape-pgbackrest run > /dev/null
echo "then $?"
