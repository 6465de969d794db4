{#- The raw billing tables, one line a source; each has its contract in optiinfra_pipelines/tables/billing.py. -#}
{% macro billing_tables() %}
    {{ return([
        'aws_billing',
        'gcp_billing',
        'azure_billing',
        'vultr_billing',
        'focus_billing',
    ]) }}
{% endmacro %}


{#- The clouds whose APIs are asked for metrics, inventory and prices; see optiinfra_pipelines/tables/cloud.py. -#}
{% macro cloud_providers() %}
    {{ return(['aws', 'gcp', 'azure', 'vultr']) }}
{% endmacro %}


{#- The current rows of one such kind of every cloud, one under the other. -#}
{% macro all_clouds(kind) -%}
{% for provider in cloud_providers() -%}
select * from {{ current_rows(source('raw', provider ~ '_' ~ kind)) }}
{{ 'union all' if not loop.last }}
{% endfor %}
{%- endmacro %}


{#- A raw table's rows as readers have to see them, to stand after FROM.

    A table of restatable slices, whose `load_column` names the load of a row: the rows of each slice's visible load.
    A table with a natural key (no `load_column`): the newest row of each key. Appended tables are read as they are. -#}
{% macro current_rows(relation, load_column=none) -%}
    {%- if load_column -%}
        (select * from {{ relation }} where {{ load_column }} {{ in_anywhere() }} (
            select load_id from {{ ref('loads') }} where recency = 1
        ))
    {%- else -%}
        {{ newest_by_key(relation) }}
    {%- endif -%}
{%- endmacro %}


{#- What this model holds since its last build, when its rows may be kept; none when all must be computed:
    on the first run, under --full-refresh, and after its columns changed. A load's rows never change, so a model that
    aggregates load by load keeps what it has of the loads that still count. -#}
{% macro last_build() %}
    {%- if not execute or should_full_refresh() -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set built = load_relation(this) -%}
    {%- if built is none or not built.is_table -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set columns = adapter.get_columns_in_relation(built) | map(attribute='name') | sort -%}
    {{ return(built if columns == model.columns.keys() | sort else none) }}
{% endmacro %}


{#- The loads of the CTE `loads` that `built` holds with all their rows: ClickHouse shows a first build that was
    killed as far as it came, and what is not whole is computed again. -#}
{% macro loads_kept(built) -%}
    select loads.load_id as load_id
    from loads
    inner join (select load_id, sum(rows) as built_rows from {{ built }} group by load_id) as built
        on loads.load_id = built.load_id and loads.rows = built.built_rows
{%- endmacro %}
