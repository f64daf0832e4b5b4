"""commplan's planner: descriptions in, the cheapest legal communication plan out. Imports nothing by itself."""
