-- one row is one charge that counts today, in the columns of FOCUS 1.2

{{ config(materialized='view') }}

with

billing as (
    select * from {{ ref('billing') }}
)

select
    {%- for name, column in model.columns.items() %}
    {{ divisible(name) if column.data_type else name }}{{ ',' if not loop.last }}
    {%- endfor %}
from billing
