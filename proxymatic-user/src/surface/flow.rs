//! Flows as rows: the destination of each socket, its backend, and its process.

use std::net::{IpAddr, SocketAddr};

use proxymatic_common::{Address, PROTOCOL_TCP, Port};
use serde::Serialize;

use super::{
    Rows,
    table::{count, rtt, table, time},
};
use crate::{
    plan::MapState,
    sockets::{Flow, Traffic},
};

/// A live translated socket, as `flow show` prints it. The JSON is a contract: see docs/cli.md.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowRow {
    /// The name of the service; `None` if the backend's id has another owner by now.
    pub service: Option<String>,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The process that has the socket; `None` if it cannot be determined.
    pub pid: Option<u32>,
    /// The name of the process.
    pub command: Option<String>,
    /// The cgroup of the process.
    pub cgroup: Option<String>,
    /// The socket's own address and port. For a remote client: the source that the backend sees.
    pub local: SocketAddr,
    /// The address and port to which the program connected.
    pub destination: SocketAddr,
    /// The address and port of the backend.
    pub backend: SocketAddr,
    /// The backend's task.
    pub task: Option<String>,
    /// Seconds since the translation.
    pub age_s: f64,
    /// Smoothed round trip time in microseconds; `None` for UDP.
    pub rtt_us: Option<u32>,
    /// Bytes that the other side has acknowledged; `None` for UDP.
    pub sent: Option<u64>,
    /// Bytes received; `None` for UDP.
    pub received: Option<u64>,
    /// The remote client; `None` for a socket of this host.
    pub client: Option<SocketAddr>,
}

/// Returns flows as rows, ordered by service and age. `now` is nanoseconds of the monotonic clock.
pub fn flow_rows(flows: &[Flow], tables: &MapState, now: u64) -> Vec<FlowRow> {
    let mut rows: Vec<_> = flows.iter().map(|flow| row(flow, tables, now)).collect();
    rows.sort_by(|a, b| {
        (&a.service, a.backend)
            .cmp(&(&b.service, b.backend))
            .then(b.age_s.total_cmp(&a.age_s))
            .then(a.local.cmp(&b.local))
    });
    rows
}

fn row(flow: &Flow, tables: &MapState, now: u64) -> FlowRow {
    let made = &flow.translation;
    let entry = tables.backends().get(&made.backend).filter(|entry| entry.backend.generation == made.generation);
    let service = entry.and_then(|entry| tables.services().get(&entry.backend.service));
    let of_process = |part: fn(&crate::sockets::Process) -> String| flow.process.as_ref().map(part);
    let of_traffic = |part: fn(&Traffic) -> u64| flow.traffic.as_ref().map(part);
    FlowRow {
        service: service.map(|service| service.name.clone()),
        protocol: if flow.protocol == PROTOCOL_TCP { "tcp" } else { "udp" },
        pid: flow.process.as_ref().map(|process| process.pid),
        command: of_process(|process| process.command.clone()),
        cgroup: of_process(|process| process.cgroup.clone()),
        local: socket(flow.local, flow.local_port),
        destination: socket(made.destination, made.destination_port),
        backend: socket(made.backend_address, made.backend_port),
        task: entry.map(|entry| entry.task.clone()),
        age_s: (now.saturating_sub(flow.start) / 1_000_000) as f64 / 1000.0,
        rtt_us: flow.traffic.map(|traffic| traffic.rtt_us),
        sent: of_traffic(|traffic| traffic.sent),
        received: of_traffic(|traffic| traffic.received),
        client: flow.client.map(|(address, port)| socket(address, port)),
    }
}

fn socket(address: Address, port: Port) -> SocketAddr {
    SocketAddr::new(IpAddr::from(address), port.get())
}

impl Rows for Vec<FlowRow> {
    fn table(&self) -> String {
        if self.is_empty() {
            return "no flows".into();
        }
        let header = ["SERVICE", "PID", "COMMAND", "DESTINATION", "BACKEND", "AGE", "RTT", "SENT", "RECEIVED"];
        let rows = self.iter().map(|row| {
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
            vec![
                or_none(row.service.clone()),
                or_none(row.pid.map(|pid| pid.to_string())),
                or_none(row.command.clone().or_else(|| row.client.map(|client| client.to_string()))),
                format!("{}/{}", row.destination, row.protocol),
                row.backend.to_string(),
                time(row.age_s),
                or_none(row.rtt_us.map(|us| rtt(us.into()))),
                or_none(row.sent.map(count)),
                or_none(row.received.map(count)),
            ]
        });
        table(&header, &["PID", "AGE", "RTT", "SENT", "RECEIVED"], rows)
    }
}

#[cfg(test)]
mod tests {
    use proxymatic_common::{Backend, BackendState, PROTOCOL_UDP, Translation};

    use super::*;
    use crate::{
        plan::{Capacity, MapOp},
        sockets::Process,
    };

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn flows_are_shown_as_table_and_json() {
        let mut tables = MapState::new(Capacity::default());
        tables.apply(&MapOp::PutServiceName(0, "/shop/web".into()));
        tables.apply(&MapOp::PutBackendName(7, "web.1".into()));
        tables.apply(&MapOp::PutBackend(7, Backend { state: BackendState::ACTIVE, ..Backend::free(3) }));
        let made = Translation {
            destination: address("127.0.0.1"),
            backend_address: address("10.0.0.2"),
            destination_port: Port::new(1234),
            backend_port: Port::new(31_000),
            backend: 7,
            generation: 3,
            counted: 1,
        };
        let process = Process { pid: 4711, command: "curl".into(), cgroup: "/mesos/x".into() };
        let tcp = Flow {
            protocol: PROTOCOL_TCP,
            local: address("10.0.0.1"),
            local_port: Port::new(40_000),
            translation: made,
            start: 1_000_000_000,
            traffic: Some(Traffic { rtt_us: 740, sent: 100, received: 12_345 }),
            process: Some(process),
            client: None,
        };
        let of_another = Translation { generation: 2, destination: address("fd00::1"), ..made };
        let udp = Flow { protocol: PROTOCOL_UDP, translation: of_another, traffic: None, process: None, ..tcp.clone() };
        let remote = Flow {
            client: Some((address("10.0.0.9"), Port::new(50_000))),
            traffic: None,
            process: None,
            ..tcp.clone()
        };
        let rows = flow_rows(&[tcp, udp, remote], &tables, 3_500_000_000);
        expect_test::expect![[r#"
            SERVICE     PID  COMMAND         DESTINATION         BACKEND          AGE    RTT  SENT  RECEIVED
            -             -  -               [fd00::1]:1234/udp  10.0.0.2:31000  2.5s      -     -         -
            /shop/web  4711  curl            127.0.0.1:1234/tcp  10.0.0.2:31000  2.5s  740us   100     12.3k
            /shop/web     -  10.0.0.9:50000  127.0.0.1:1234/tcp  10.0.0.2:31000  2.5s      -     -         -
        "#]]
        .assert_eq(&rows.table());
        expect_test::expect![[
            r#"{"service":"/shop/web","protocol":"tcp","pid":4711,"command":"curl","cgroup":"/mesos/x","local":"10.0.0.1:40000","destination":"127.0.0.1:1234","backend":"10.0.0.2:31000","task":"web.1","age_s":2.5,"rtt_us":740,"sent":100,"received":12345,"client":null}"#
        ]]
        .assert_eq(&serde_json::to_string(&rows[1]).unwrap());
    }
}
