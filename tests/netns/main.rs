//! What needs namespaces, cgroups and real connections. One module per thing it proves; all need root.

/// The harness itself: hosts reach each other, and nothing stays behind whatever happens.
mod harness;
