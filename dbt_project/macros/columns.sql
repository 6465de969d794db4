{#- The columns that a model's YAML describes, in its order: for models whose columns are those of a contract. -#}
{% macro described_columns() -%}
    {{ model.columns.keys() | join(', ') }}
{%- endmacro %}
