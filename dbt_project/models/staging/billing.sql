-- one row is one charge that counts today, of any provider

{% for table in billing_tables() -%}
select {{ described_columns() }}
from {{ current_rows(source('raw', table), 'x_load_id') }}
{{ 'union all' if not loop.last }}
{% endfor %}
