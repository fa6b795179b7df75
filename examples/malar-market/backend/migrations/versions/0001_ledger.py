"""Farmers, daily entries and settlements.

Needs the extensions uuid-ossp and pgcrypto, which only a superuser could create: the database comes with them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

revision = "0001"
down_revision = None


def upgrade():
    op.create_table(
        "farmers",
        sa.Column("id", UUID(as_uuid=True), primary_key=True, server_default=sa.text("uuid_generate_v4()")),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("phone", sa.String(20), nullable=False, unique=True),
        sa.Column("village", sa.String(100), nullable=False, server_default=""),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.create_table(
        "daily_entries",
        sa.Column("id", UUID(as_uuid=True), primary_key=True, server_default=sa.text("gen_random_uuid()")),
        sa.Column("farmer_id", UUID(as_uuid=True), sa.ForeignKey("farmers.id"), nullable=False, index=True),
        sa.Column("entry_date", sa.Date, nullable=False, index=True),
        sa.Column("flower", sa.String(50), nullable=False),
        sa.Column("weight_kg", sa.Numeric(8, 3), nullable=False),
        sa.Column("rate_per_kg", sa.Numeric(8, 2), nullable=False),
        sa.Column("amount", sa.Numeric(12, 2), sa.Computed("round(weight_kg * rate_per_kg, 2)"), nullable=False),
    )


def downgrade():
    op.drop_table("daily_entries")
    op.drop_table("farmers")
