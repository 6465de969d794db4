-- one row is one statistic of one metric of one resource over one window, on any cloud

{{ all_clouds('metrics') }}
