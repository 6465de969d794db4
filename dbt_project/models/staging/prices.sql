-- one row is one list price of one SKU in one region on one UTC day, on any cloud

{{ all_clouds('prices') }}
