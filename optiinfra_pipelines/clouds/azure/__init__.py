"""Azure: inventory by Resource Graph, metrics by Azure Monitor and Log Analytics, bills by Cost Management, retail
prices. Files of Cost Management exports are read by `clouds/focus/`."""
