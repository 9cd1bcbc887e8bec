//! The simulated Marathon and the harness of the root tiers.
