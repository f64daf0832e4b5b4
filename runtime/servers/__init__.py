"""What servers share that execute a plan: the forward in progress, what ran, which sizes a graph may have."""
