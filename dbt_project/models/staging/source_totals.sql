-- one row per visible load, provider name, billing period, invoice and currency: what the source's own digits add up to

select {{ described_columns() }}
from {{ current_rows(source('raw', 'source_totals'), 'load_id') }}
