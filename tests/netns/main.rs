//! Tests of the netns tier: real connections in network namespaces and cgroups. Each module tests one feature; all need root.

/// Addresses of the host that are added and removed.
mod addresses;
/// `affinity`: a client stays with its backend.
mod affinity;
/// Allow lists: which clients may connect.
mod allow_list;
/// Apps that attack what belongs to others.
mod attacks;
/// `--bpf-log`: what the hooks log.
mod bpf_log;
/// Programs and links as the kernel reports them through bpftool.
mod bpftool;
/// Sockets and cgroups that bypass the hooks.
mod bypass;
/// Detection of the host's cgroup root.
mod cgroup_root;
/// Output of the commands.
mod commands;
/// connect(2): which destinations reach a service, and which peer the program sees.
mod connect;
/// The agent in a container with a cgroup namespace of its own.
mod container_cgroupns;
/// The agent killed before each of its writes.
mod crash_before_write;
/// `detach`: it removes exactly what the agent has put there.
mod detach;
/// Output that the documents show.
mod documents;
/// `backend drain` and `backend undrain`.
mod drain;
/// The status endpoint.
mod endpoint;
/// `event watch`.
mod event_watch;
/// `feature probe`.
mod feature_probe;
/// New tasks that do not listen yet.
mod first_answers;
/// Clusters that tests start with.
mod fixtures;
/// Comparison of output with golden text.
mod golden;
/// The test harness itself.
mod harness;
/// Hosts that lack a requirement of the agent.
mod host_requirements;
/// Warnings about the host.
mod host_warnings;
/// Packet hooks on network interfaces.
mod interfaces;
/// Agents killed while they start.
mod interrupted_start;
/// Features of this kernel, and the verifier's budget.
mod kernel_limits;
/// Policy `latency`.
mod latency;
/// The agent's cache of listening ports.
mod listener_cache;
/// Programs that listen on a service port.
mod listeners;
/// Policy `maglev`.
mod maglev;
/// A Marathon that does not answer.
mod marathon_down;
/// Faults of Marathon, under load.
mod marathon_faults;
/// What a real Marathon was seen to do, under load.
mod marathon_histories;
/// `maxconn`: limits of open connections.
mod maxconn;
/// The agent restarted for another cgroup.
mod other_cgroup;
/// The packet programs, one packet at a time (BPF_PROG_TEST_RUN).
mod packets;
/// Panic mode: backends that are tried if a service has no better one.
mod panic_mode;
/// Pins, locks and maps that the agent cannot create or use.
mod pin_errors;
/// `plan show`.
mod plan_show;
/// Shares of connections under each policy.
mod policies;
/// Capabilities of the agent's threads.
mod privileges;
/// Probes of ejected backends.
mod probes;
/// Real programs, unmodified.
mod programs;
/// TCP and UDP on one port number.
mod protocols;
/// The registrator source with a real etcd.
mod registrator;
/// Clients on other hosts.
mod remote;
/// How the agent counts, shows and ends connections of remote clients.
mod remote_connections;
/// All backends of a service replaced at once.
mod replace_all;
/// Replicas that crash or stop answering, under load.
mod replica_failures;
/// Agents that end and start again.
mod restart;
/// Replicas replaced one by one.
mod rolling_update;
/// Rolling upgrades of tasks that close their listener at SIGTERM.
mod rolling_upgrade;
/// A second agent on the same pins.
mod second_agent;
/// The self-test of the agent.
mod self_test;
/// One UDP socket with several services.
mod shared_udp_socket;
/// Half a minute of the soak.
mod soak;
/// Every kind of socket with every kind of service.
mod socket_matrix;
/// Counts of open connections, for everything that programs do with sockets.
mod sockets;
/// Corrections of wrong counts.
mod sockets_drift;
/// Sockets of a backend that is gone.
mod sockets_gone;
/// Connections that exceed their idle timeout.
mod sockets_idle;
/// The state file: a boot without Marathon.
mod state_file;
/// System calls other than connect(2) that connect.
mod syscalls;
/// Which tasks get connections, by state and health.
mod task_states;
/// Takeover by another build or another map ABI version.
mod upgrade;
/// The smoke script for a cluster of virtual machines.
mod vagrant;
/// Virtual addresses.
mod virtual_addresses;
/// Weights and least connections.
mod weights;
