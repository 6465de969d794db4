-- one row is one request to a model and its answer, on any cloud

{{ all_clouds('llm_interactions') }}
