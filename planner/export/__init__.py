"""What servers can be told without a plugin: settings from a plan, and limits for their source from measured tables."""
