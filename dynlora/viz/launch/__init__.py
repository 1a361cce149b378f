"""The Launch form: data source, settings, cost, presets."""
