//! Decoding returns what was encoded, and rejects everything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{
    model::{Backend, Policy, Protocol, Service, ServiceKey, Settings, Snapshot, State as TaskState, Warning, Weight},
    source::SourceId,
    state::{Drained, Saved},
};

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn backend() -> impl Strategy<Value = Backend> {
    let state = prop::sample::select(vec![TaskState::Warming, TaskState::Active, TaskState::Draining]);
    (".{0,12}", address(), 1_u16.., 0_u16..=1000, any::<u32>(), state).prop_map(
        |(task, address, port, weight, maxconn, state)| Backend {
            task,
            address,
            port,
            weight: Weight::new(weight).unwrap(),
            maxconn,
            state,
        },
    )
}

fn settings() -> impl Strategy<Value = Settings> {
    let entries = ["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::1", "cgroup:/mesos", "cgroup:/a\"b\n", "192.0.2.7"];
    let list = prop::sample::subsequence(entries.to_vec(), 0..5);
    let list = list.prop_map(|list| list.iter().map(|entry| entry.parse().unwrap()).collect());
    let policy = prop::sample::select(Policy::ALL.to_vec());
    let time = || any::<Duration>();
    let times = (time(), prop::option::of(time()), prop::option::of(time()), time());
    (policy, prop::option::of(any::<u32>()), times, prop::option::of(list), any::<[bool; 2]>()).prop_map(
        |(policy, maxconn, (connect, client, server, affinity), allow, [reset, expose])| Settings {
            policy,
            maxconn,
            connect,
            client,
            server,
            affinity,
            allow,
            reset,
            expose,
        },
    )
}

fn service() -> impl Strategy<Value = Service> {
    let unique = |backends: Vec<Backend>| {
        let keyed = backends.into_iter().map(|it| ((it.task.clone(), it.address, it.port), it));
        keyed.collect::<BTreeMap<_, _>>().into_values().collect()
    };
    (".{0,20}", prop::option::of(".{0,20}"), prop::collection::vec(backend(), 0..5), settings()).prop_map(
        move |(name, owner, backends, settings)| Service {
            name,
            owner,
            backends: unique(backends),
            settings,
            ..Service::default()
        },
    )
}

fn key() -> impl Strategy<Value = ServiceKey> {
    (prop::option::of(address()), 1_u16.., any::<bool>()).prop_map(|(address, port, tcp)| ServiceKey {
        address,
        port,
        protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
    })
}

/// Any state.
fn state() -> impl Strategy<Value = State> {
    let services = prop::collection::btree_map(key(), service().prop_map(Into::into), 0..4);
    let warning = (".{0,9}", ".{0,30}").prop_map(|(app, reason)| Warning { app, reason });
    let snapshot = (services, prop::collection::vec(warning, 0..3))
        .prop_map(|(services, warnings)| Snapshot { services, warnings });
    let saved = (prop::collection::btree_set(".{0,20}", 0..3), any::<u64>(), snapshot)
        .prop_map(|(of, answered_ms, snapshot)| Saved { of, answered_ms, snapshot });
    let sources = prop::collection::btree_map(prop::sample::select(SourceId::ALL.to_vec()), saved, 0..4);
    let drained = (key(), ".{0,12}", address(), 1_u16..).prop_map(|(service, task, address, port)| Drained {
        service,
        task,
        address,
        port,
    });
    (sources, prop::collection::btree_set(drained, 0..3)).prop_map(|(sources, drained)| State { sources, drained })
}

/// A state with every field in use.
fn example() -> State {
    let allow: Option<BTreeSet<_>> = Some(["10.0.0.0/8", "cgroup:/mesos"].map(|it| it.parse().unwrap()).into());
    let settings = Settings { allow, client: Some(Duration::from_millis(1500)), ..Settings::default() };
    let backend = Backend {
        task: "web.1".into(),
        address: [10, 0, 0, 1].into(),
        port: 31_000,
        weight: Weight::default(),
        maxconn: 5,
        state: TaskState::Active,
    };
    let owner = Some("/web".into());
    let service = Service { name: "/web".into(), owner, backends: vec![backend], settings, ..Service::default() };
    let virtual_address = ServiceKey { address: Some([192, 0, 2, 1].into()), port: 53, protocol: Protocol::Udp };
    let services = [(ServiceKey::host(1234, Protocol::Tcp), service.clone().into()), (virtual_address, service.into())];
    let warnings = vec![Warning { app: "/odd".into(), reason: "label servicePort is not a port".into() }];
    let of = ["http://marathon.example:8080".to_owned()].into();
    let saved =
        Saved { of, answered_ms: 1_795_000_000_000, snapshot: Snapshot { services: services.into(), warnings } };
    let drained = Drained {
        service: ServiceKey::host(1234, Protocol::Tcp),
        task: "web.1".into(),
        address: [10, 0, 0, 1].into(),
        port: 31_000,
    };
    State { sources: [(SourceId::Marathon, saved)].into(), drained: [drained].into() }
}

proptest! {
    #[test]
    fn decode_returns_what_was_encoded(state in state()) {
        let file = encode(&state).unwrap();
        prop_assert_eq!(decode(&file), Ok(state));
    }

    #[test]
    fn decode_rejects_random_bytes_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(decode(&bytes).is_err());
    }

    /// A run of other bytes, of any length.
    #[test]
    fn decode_rejects_a_run_of_other_bytes(
        state in state(), at in any::<prop::sample::Index>(), other in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let mut file = encode(&state).unwrap();
        let start = at.index(file.len());
        let end = (start + other.len()).min(file.len());
        file.splice(start..end, other);
        prop_assert!(decode(&file).map_or(true, |read| read == state));
    }
}

#[test]
fn decode_rejects_every_truncation() {
    let file = encode(&example()).unwrap();
    for length in 0..file.len() {
        assert!(decode(&file[..length]).is_err(), "the first {length} bytes of {}", file.len());
    }
    assert!(decode(&[&file[..], b"x"].concat()).is_err());
}

#[test]
fn decode_rejects_one_changed_byte_or_reads_the_same() {
    let (state, file) = (example(), encode(&example()).unwrap());
    let mut refused = 0;
    for at in 0..file.len() {
        let bits = (0..8).map(|bit| file[at] ^ (1 << bit));
        for byte in bits.chain([!file[at], 0, b' ', b'0', b'"', b'\n']).filter(|byte| *byte != file[at]) {
            let mut damaged = file.clone();
            damaged[at] = byte;
            match decode(&damaged) {
                Ok(read) => assert_eq!(read, state, "byte {at} is {byte:#x}"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > file.len(), "{refused} of about {}", file.len() * 13);
}

/// A file with this body and a correct header.
fn whole(body: &str) -> String {
    let body = format!("{body}\n");
    let (bytes, crc32) = (body.len(), crc32fast::hash(body.as_bytes()));
    format!("{{\"proxymatic\":\"state\",\"version\":1,\"bytes\":{bytes},\"crc32\":\"{crc32:08x}\"}}\n{body}")
}

/// The body of a file with one service and one backend, where everything stands that has no default.
fn shortest_body() -> serde_json::Value {
    serde_json::json!({"sources": {"marathon": {"services": [{
        "port": 1234, "protocol": "tcp", "backends": [{"task": "web.1", "address": "10.0.0.1", "port": 31000}]
    }]}}})
}

#[test]
fn missing_field_has_its_default() {
    let state = decode(whole(&shortest_body().to_string()).as_bytes()).unwrap();
    let saved = &state.sources[&SourceId::Marathon];
    let service = &saved.snapshot.services[&ServiceKey::host(1234, Protocol::Tcp)];
    assert_eq!(service.settings, Settings::default());
    let backend = &service.backends[0];
    assert_eq!((backend.weight, backend.maxconn, backend.state), (Weight::default(), 0, TaskState::Active));
    assert_eq!(decode(whole("{}").as_bytes()), Ok(State::default()));
}

/// Whatever object of the file a later agent adds a field to, this agent reads the rest.
#[test]
fn unknown_field_is_skipped_in_every_object() {
    fn add_fields(value: &mut serde_json::Value, named: bool) -> usize {
        match value {
            serde_json::Value::Object(fields) => {
                let inner: usize = fields.iter_mut().map(|(key, it)| add_fields(it, key != "sources")).sum();
                // The keys of `sources` are names of sources, not fields; serde defines the fields of a duration.
                let grows = named && !fields.contains_key("nanos");
                if grows {
                    fields.insert("new".into(), serde_json::json!({"any": [1]}));
                }
                inner + usize::from(grows)
            }
            serde_json::Value::Array(items) => items.iter_mut().map(|it| add_fields(it, true)).sum(),
            _ => 0,
        }
    }
    let (state, file) = (example(), String::from_utf8(encode(&example()).unwrap()).unwrap());
    let mut body: serde_json::Value = serde_json::from_str(file.split_once('\n').unwrap().1).unwrap();
    // Two services with settings, durations and a backend each, one warning, one drain.
    assert!(add_fields(&mut body, true) > 10);
    assert_eq!(decode(whole(&body.to_string()).as_bytes()), Ok(state));
}

#[test]
fn damage_names_the_cause() {
    let file = encode(&example()).unwrap();
    let text = String::from_utf8(file).unwrap();
    let (header, body) = text.split_once('\n').unwrap();
    assert!(decode(whole(body.trim_end()).as_bytes()).is_ok(), "the helper itself must give a valid file");
    for (file, said) in [
        (String::new(), "it does not begin with the header of a state file"),
        ("{}\n{}\n".into(), "it does not begin with"),
        ("hello\n".repeat(100), "it does not begin with"),
        (text.replace("\"state\"", "\"other\""), "it does not begin with"),
        (
            text.replace("\"version\":1", "\"version\":2,\"more\":[]"),
            "it is of version 2, and this agent reads version 1",
        ),
        (format!("{header}\n"), "it has 0 bytes after its header, which announces "),
        (text.replace("31000", "31001"), "its checksum is wrong"),
        (whole(&body.trim_end().replace("\"marathon\"", "\"consul\"")), "there is no source \"consul\""),
        (
            whole(&body.trim_end().replace("\"weight\":500", "\"weight\":1001")),
            "service 1234/tcp: web.1 has weight 1001",
        ),
        (whole(&body.trim_end().replace("\"port\":31000", "\"port\":0")), "its content is invalid: "),
        (whole(&body.trim_end().replace("leastconn", "fastest")), "policy \"fastest\" must be one of"),
        (whole(&body.trim_end().replace("10.0.0.0/8", "10.0.0.0/33")), "an entry of its allow list must be"),
        (whole(&body.trim_end().replace("\"task\"", "\"it\"")), "its content is invalid: missing field `task`"),
    ] {
        let damage = decode(file.as_bytes()).unwrap_err().to_string();
        assert!(damage.contains(said), "{said}: {damage}");
    }
}
