//! With a Docker of the lab's own: the image, the local cluster of docker-compose.yml, containers on a bridge. Needs root,
//! docker.io, docker-compose, and what `cargo xtask image --prepare` lays out.

/// Containers reach services of an agent that runs on their host.
mod bridge;
/// The local cluster, with a simulated Marathon.
mod cluster;
/// dockerd in namespaces of the lab.
mod daemon;
/// What the files of docker-compose say.
mod files;
/// The image, with the capabilities that the documents name.
mod image;
