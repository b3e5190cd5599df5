"""Ways to search: each proposes counts and observes how good they were."""
