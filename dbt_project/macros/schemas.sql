{#- Asset key [schema, table] = DuckDB schema.table = ClickHouse optiinfra_<schema>.table. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set schema = custom_schema_name or target.schema -%}
    {{ 'optiinfra_' ~ schema if custom_schema_name and target.type == 'clickhouse' else schema }}
{%- endmacro %}


{#- As dbt-duckdb creates views, but without the database's name in them: DuckDB names a database after its file, and a
    view that says so is broken in a copy of the file under another name. -#}
{% macro duckdb__create_view_as(relation, sql) -%}
    create view {{ relation }} as (
        {{ sql | replace('"' ~ relation.database ~ '".', '') }}
    );
{%- endmacro %}
