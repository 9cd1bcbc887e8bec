//! Tests with a Docker of the lab: the image, the local cluster of docker-compose.yml, containers on a bridge. They
//! need root, docker.io, docker-compose, and the result of `cargo xtask image --prepare`.

/// Containers that connect to services of an agent on their host.
mod bridge;
/// The local cluster, with a simulated Marathon.
mod cluster;
/// dockerd in namespaces of the lab.
mod daemon;
/// The files of docker-compose.
mod files;
/// Daemons of the host, as containers reach them.
mod host_daemons;
/// The image, with the documented capabilities.
mod image;
