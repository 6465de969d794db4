-- every difference between a bill's own digits and the warehouse is a row that was rejected; a judgement, so a warning

{{ config(severity='warn') }}

select *
from {{ ref('invoice_reconciliation') }}
where status = 'unexplained'
