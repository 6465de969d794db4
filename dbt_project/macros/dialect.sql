{#- The few places where DuckDB and ClickHouse speak differently. -#}

{#- IN over a subquery; on a ClickHouse cluster the subquery has to run once, not on every shard. -#}
{% macro in_anywhere() %}{{ return(adapter.dispatch('in_anywhere')()) }}{% endmacro %}
{% macro default__in_anywhere() %}{{ return('in') }}{% endmacro %}
{% macro clickhouse__in_anywhere() %}{{ return('global in') }}{% endmacro %}

{#- The rows of a keyed table: DuckDB replaces on writing, ClickHouse on merging or on reading FINAL. -#}
{% macro newest_by_key(relation) %}{{ return(adapter.dispatch('newest_by_key')(relation)) }}{% endmacro %}
{% macro default__newest_by_key(relation) -%} {{ return(relation) }} {%- endmacro %}
{% macro clickhouse__newest_by_key(relation) -%} {{ return('(select * from ' ~ relation ~ ' final)') }} {%- endmacro %}

{#- The UTC day of a timestamp, as a date. -#}
{% macro utc_day(timestamp) %}{{ return(adapter.dispatch('utc_day')(timestamp)) }}{% endmacro %}
{% macro default__utc_day(timestamp) %}{{ return('cast(' ~ timestamp ~ ' as date)') }}{% endmacro %}
{% macro clickhouse__utc_day(timestamp) %}{{ return('toDate32(' ~ timestamp ~ ')') }}{% endmacro %}

{#- The UTC month of a timestamp, written YYYY-MM. -#}
{% macro utc_month(timestamp) %}{{ return(adapter.dispatch('utc_month')(timestamp)) }}{% endmacro %}
{% macro default__utc_month(timestamp) %}{{ return("strftime(" ~ timestamp ~ ", '%Y-%m')") }}{% endmacro %}
{% macro clickhouse__utc_month(timestamp) %}{{ return("formatDateTime(" ~ timestamp ~ ", '%Y-%m')") }}{% endmacro %}

{#- Now, as a timestamp in UTC. -#}
{% macro utc_now() %}{{ return(adapter.dispatch('utc_now')()) }}{% endmacro %}
{% macro default__utc_now() %}{{ return("cast(now() at time zone 'UTC' as timestamp)") }}{% endmacro %}
{% macro clickhouse__utc_now() %}{{ return("now64(6, 'UTC')") }}{% endmacro %}

{#- The text under the first of `keys` that a JSON object has a non-empty value for; null when it is no object. -#}
{% macro json_text(json, keys) %}{{ return(adapter.dispatch('json_text')(json, keys)) }}{% endmacro %}
{% macro default__json_text(json, keys) -%}
    coalesce(
        {%- for key in keys %}
        nullif(json_extract_string(try_cast({{ json }} as json), '$.{{ key }}'), ''){{ ',' if not loop.last }}
        {%- endfor %}
    )
{%- endmacro %}
{% macro clickhouse__json_text(json, keys) -%}
    coalesce(
        {%- for key in keys %}
        nullIf(JSONExtract({{ json }}, '{{ key }}', 'Nullable(String)'), ''){{ ',' if not loop.last }}
        {%- endfor %}
    )
{%- endmacro %}

{#- One row for each comma-separated item of a text column. -#}
{% macro each_item(text) %}{{ return(adapter.dispatch('each_item')(text)) }}{% endmacro %}
{% macro default__each_item(text) %}{{ return("unnest(string_split(" ~ text ~ ", ','))") }}{% endmacro %}
{% macro clickhouse__each_item(text) %}{{ return("arrayJoin(splitByChar(',', " ~ text ~ "))") }}{% endmacro %}

{#- The `position`-th part, from 1, of a text between slashes. -#}
{% macro path_part(text, position) %}{{ return(adapter.dispatch('path_part')(text, position)) }}{% endmacro %}
{% macro default__path_part(text, position) -%}
    {{ return("split_part(" ~ text ~ ", '/', " ~ position ~ ")") }}
{%- endmacro %}
{% macro clickhouse__path_part(text, position) -%}
    {{ return("splitByChar('/', " ~ text ~ ")[" ~ position ~ "]") }}
{%- endmacro %}

{#- The first group of a regular expression (RE2 in both engines), empty where it does not match. -#}
{% macro matched(text, pattern) %}{{ return(adapter.dispatch('matched')(text, pattern)) }}{% endmacro %}
{% macro default__matched(text, pattern) -%}
    {{ return("regexp_extract(" ~ text ~ ", '" ~ pattern ~ "', 1)") }}
{%- endmacro %}
{% macro clickhouse__matched(text, pattern) %}{{ return("extract(" ~ text ~ ", '" ~ pattern ~ "')") }}{% endmacro %}

{#- A printed number as an exact decimal, null where it is none. -#}
{% macro exact_number(text) %}{{ return(adapter.dispatch('exact_number')(text)) }}{% endmacro %}
{% macro default__exact_number(text) %}{{ return('try_cast(' ~ text ~ ' as decimal(38, 21))') }}{% endmacro %}
{% macro clickhouse__exact_number(text) %}{{ return('toDecimal128OrNull(' ~ text ~ ', 21)') }}{% endmacro %}

{#- An amount that survives being divided by another one: DuckDB divides as doubles, ClickHouse needs the room. -#}
{% macro divisible(column) %}{{ return(adapter.dispatch('divisible')(column)) }}{% endmacro %}
{% macro default__divisible(column) %}{{ return(column) }}{% endmacro %}
{% macro clickhouse__divisible(column) %}{{ return('toDecimal256(' ~ column ~ ', 21) as ' ~ column) }}{% endmacro %}

{#- A sum of bigints as a bigint: DuckDB widens it to hugeint; ClickHouse does not, and cannot cast a null. -#}
{% macro sum_bigint(column) %}{{ return(adapter.dispatch('sum_bigint')(column)) }}{% endmacro %}
{% macro default__sum_bigint(column) %}{{ return('cast(sum(' ~ column ~ ') as bigint)') }}{% endmacro %}
{% macro clickhouse__sum_bigint(column) %}{{ return('sum(' ~ column ~ ')') }}{% endmacro %}

{#- The UTC hour that a timestamp lies in, as a timestamp. -#}
{% macro utc_hour(timestamp) %}{{ return(adapter.dispatch('utc_hour')(timestamp)) }}{% endmacro %}
{% macro default__utc_hour(timestamp) %}{{ return("date_trunc('hour', " ~ timestamp ~ ")") }}{% endmacro %}
{% macro clickhouse__utc_hour(timestamp) -%}
    {{ return("toDateTime64(toStartOfHour(" ~ timestamp ~ "), 6, 'UTC')") }}
{%- endmacro %}

{#- The exact quantile, between two values where it falls between them; null of nothing. -#}
{% macro quantile(column, level) %}{{ return(adapter.dispatch('quantile')(column, level)) }}{% endmacro %}
{% macro default__quantile(column, level) %}{{ return('quantile_cont(' ~ column ~ ', ' ~ level ~ ')') }}{% endmacro %}
{% macro clickhouse__quantile(column, level) -%}
    {{ return('quantileExactInclusiveOrNull(' ~ level ~ ')(' ~ column ~ ')') }}
{%- endmacro %}

{#- The standard deviation of a sample; null of fewer than two values. -#}
{% macro sample_deviation(column) %}{{ return(adapter.dispatch('sample_deviation')(column)) }}{% endmacro %}
{% macro default__sample_deviation(column) %}{{ return('stddev_samp(' ~ column ~ ')') }}{% endmacro %}
{% macro clickhouse__sample_deviation(column) -%}
    {{ return('if(count(' ~ column ~ ') > 1, stddevSampStable(' ~ column ~ '), null)') }}
{%- endmacro %}
