"""What farmers were paid; the receipt number of each payment is a digest that pgcrypto makes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

revision = "0002"
down_revision = "0001"

RECEIPT = "encode(digest(id::text || settled_on::text, 'sha256'), 'hex')"


def upgrade():
    op.create_table(
        "settlements",
        sa.Column("id", UUID(as_uuid=True), primary_key=True, server_default=sa.text("gen_random_uuid()")),
        sa.Column("farmer_id", UUID(as_uuid=True), sa.ForeignKey("farmers.id"), nullable=False, index=True),
        sa.Column("settled_on", sa.Date, nullable=False),
        sa.Column("amount", sa.Numeric(12, 2), nullable=False),
    )
    op.execute(f"CREATE VIEW receipts AS SELECT id, farmer_id, amount, {RECEIPT} AS receipt FROM settlements")


def downgrade():
    op.execute("DROP VIEW receipts")
    op.drop_table("settlements")
