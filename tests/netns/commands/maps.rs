//! `map show`, and each map of `map dump`.

use expect_test::expect;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;

use super::quiet;
use crate::golden::Command;

#[test]
fn map_output_matches_golden() -> TestResult {
    let lab = Lab::start(2)?;
    let (_cluster, _client) = quiet(&lab)?;
    Command::well(&["map", "show"], &["ID", "ENTRIES"], &["id", "pin", "entries"]).prints(
        &lab,
        &expect![[r#"
            MAP  ID  KIND  KEY  VALUE  ENTRIES  USED
            CONFIG  *  array  4  80  *  1
            PORTS  *  array  4  8  *  1
            ADDRESSES  *  hash  16  4  *  2
            FRONTENDS  *  hash  8  4  *  1
            SLOT_RANGES  *  array  4  8  *  1
            SERVICES  *  array  4  64  *  1
            SERVICE_STATS  *  array  4  128  *  -
            SLOTS  *  array  4  8  *  3
            BACKENDS  *  array  4  64  *  2
            BACKEND_STATS  *  array  4  128  *  -
            SOCKETS  *  sk_storage  4  424  *  -
            AFFINITY  *  lru_hash  24  16  *  0
            SOURCE_RANGES  *  lpm_trie  24  4  *  0
            SOURCE_CGROUPS  *  hash  16  4  *  0
            NETNS_ADDRESSES  *  hash  8  32  *  1
            EXCLUDED  *  hash  8  4  *  0
            LISTENERS  *  hash  20  8  *  0
            DIRECT_PEERS  *  lru_hash  32  8  *  0
            EVENTS  *  ringbuf  0  0  *  -
            COUNTERS  *  array  4  512  *  -
            CONNTRACK  *  lru_hash  40  80  *  0
            CT_HALF_OPEN  *  lru_hash  40  80  *  0
            CONNTRACK_LOCKS  *  array  4  4  *  -
            FRAGMENTS  *  lru_hash  40  16  *  0
            SCRATCH  *  percpu_array  4  512  *  -
            INTERFACES  *  hash  4  40  *  0
            REPLY_PORTS  *  array  4  64  *  -
            SERVICE_NAMES  *  hash  4  256  *  1
            DRAINED  *  hash  4  4  *  1
            BACKEND_NAMES  *  hash  4  256  *  2
        "#]],
        &expect![[r#"
            {"entries":"*","id":"*","key":4,"kind":"array","map":"CONFIG","pin":"*","used":1,"value":80}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"PORTS","pin":"*","used":1,"value":8}
            {"entries":"*","id":"*","key":16,"kind":"hash","map":"ADDRESSES","pin":"*","used":2,"value":4}
            {"entries":"*","id":"*","key":8,"kind":"hash","map":"FRONTENDS","pin":"*","used":1,"value":4}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"SLOT_RANGES","pin":"*","used":1,"value":8}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"SERVICES","pin":"*","used":1,"value":64}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"SERVICE_STATS","pin":"*","used":null,"value":128}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"SLOTS","pin":"*","used":3,"value":8}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"BACKENDS","pin":"*","used":2,"value":64}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"BACKEND_STATS","pin":"*","used":null,"value":128}
            {"entries":"*","id":"*","key":4,"kind":"sk_storage","map":"SOCKETS","pin":"*","used":null,"value":424}
            {"entries":"*","id":"*","key":24,"kind":"lru_hash","map":"AFFINITY","pin":"*","used":0,"value":16}
            {"entries":"*","id":"*","key":24,"kind":"lpm_trie","map":"SOURCE_RANGES","pin":"*","used":0,"value":4}
            {"entries":"*","id":"*","key":16,"kind":"hash","map":"SOURCE_CGROUPS","pin":"*","used":0,"value":4}
            {"entries":"*","id":"*","key":8,"kind":"hash","map":"NETNS_ADDRESSES","pin":"*","used":1,"value":32}
            {"entries":"*","id":"*","key":8,"kind":"hash","map":"EXCLUDED","pin":"*","used":0,"value":4}
            {"entries":"*","id":"*","key":20,"kind":"hash","map":"LISTENERS","pin":"*","used":0,"value":8}
            {"entries":"*","id":"*","key":32,"kind":"lru_hash","map":"DIRECT_PEERS","pin":"*","used":0,"value":8}
            {"entries":"*","id":"*","key":0,"kind":"ringbuf","map":"EVENTS","pin":"*","used":null,"value":0}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"COUNTERS","pin":"*","used":null,"value":512}
            {"entries":"*","id":"*","key":40,"kind":"lru_hash","map":"CONNTRACK","pin":"*","used":0,"value":80}
            {"entries":"*","id":"*","key":40,"kind":"lru_hash","map":"CT_HALF_OPEN","pin":"*","used":0,"value":80}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"CONNTRACK_LOCKS","pin":"*","used":null,"value":4}
            {"entries":"*","id":"*","key":40,"kind":"lru_hash","map":"FRAGMENTS","pin":"*","used":0,"value":16}
            {"entries":"*","id":"*","key":4,"kind":"percpu_array","map":"SCRATCH","pin":"*","used":null,"value":512}
            {"entries":"*","id":"*","key":4,"kind":"hash","map":"INTERFACES","pin":"*","used":0,"value":40}
            {"entries":"*","id":"*","key":4,"kind":"array","map":"REPLY_PORTS","pin":"*","used":null,"value":64}
            {"entries":"*","id":"*","key":4,"kind":"hash","map":"SERVICE_NAMES","pin":"*","used":1,"value":256}
            {"entries":"*","id":"*","key":4,"kind":"hash","map":"DRAINED","pin":"*","used":1,"value":4}
            {"entries":"*","id":"*","key":4,"kind":"hash","map":"BACKEND_NAMES","pin":"*","used":2,"value":256}
        "#]],
    )?;
    Command::well(&["map", "dump", "FRONTENDS"], &[], &[]).prints(
        &lab,
        &expect![[r#"
        CLASS  PORT  PROTOCOL  SERVICE  NAME
        1  1234  tcp  0  /web
    "#]],
        &expect![[r#"
        {"class":1,"name":"/web","port":1234,"protocol":"tcp","service":0}
    "#]],
    )?;
    Command::well(&["map", "dump", "backends"], &[], &[]).prints(&lab, &expect![[r#"
        BACKEND  AT  STATE  SOURCE_STATE  GENERATION  WEIGHT  MAXCONN  LOCAL  SERVICE  NAME
        0  10.77.0.2:8001  active  active  1  500  0  no  0  /web
        1  10.77.0.2:8002  draining  active  1  500  0  no  0  /web
    "#]], &expect![[r#"
        {"at":"10.77.0.2:8001","backend":0,"generation":1,"local":false,"maxconn":0,"name":"/web","service":0,"source_state":"active","state":"active","weight":500}
        {"at":"10.77.0.2:8002","backend":1,"generation":1,"local":false,"maxconn":0,"name":"/web","service":0,"source_state":"active","state":"draining","weight":500}
    "#]])?;
    Command::well(&["map", "dump", "SERVICES"], &[], &[]).prints(&lab, &expect![[r#"
        SERVICE  SOURCE  POLICY  FEATURES  MAXCONN  AFFINITY_S  CONNECT_MS  CLIENT_MS  SERVER_MS  NAME
        0  marathon  leastconn  -  8192  0  3000  0  0  /web
    "#]], &expect![[r#"
        {"affinity_s":0,"client_ms":0,"connect_ms":3000,"features":"","maxconn":8192,"name":"/web","policy":"leastconn","server_ms":0,"service":0,"source":"marathon"}
    "#]])?;
    Command::well(&["map", "dump", "SLOT_RANGES"], &["GENERATION", "BASE"], &["generation", "base"]).prints(
        &lab,
        &expect![[r#"
            SERVICE  GENERATION  LENGTH  BASE  NAME
            0  *  1  *  /web
        "#]],
        &expect![[r#"
            {"base":"*","generation":"*","length":1,"name":"/web","service":0}
        "#]],
    )?;
    Command::well(&["map", "dump", "SLOTS"], &["SLOT"], &["slot"]).prints(
        &lab,
        &expect![[r#"
        SLOT  BACKEND  GENERATION  AT
        *  0  1  10.77.0.2:8001
        *  1  1  10.77.0.2:8002
        *  0  1  10.77.0.2:8001
    "#]],
        &expect![[r#"
        {"at":"10.77.0.2:8001","backend":0,"generation":1,"slot":"*"}
        {"at":"10.77.0.2:8002","backend":1,"generation":1,"slot":"*"}
        {"at":"10.77.0.2:8001","backend":0,"generation":1,"slot":"*"}
    "#]],
    )?;
    Command::well(&["map", "dump", "BACKEND_STATS"], &["RTT_US"], &["rtt_us"]).prints(&lab, &expect![[r#"
        BACKEND  OPENED  CLOSED  ACTIVE  ESTABLISHED  FAILED  CONSECUTIVE  EJECTED_MS  RTT_US  AT
        0  1  0  1  1  0  0  0  *  ..77.0.2:8001
        1  0  0  0  0  0  0  0  *  ..77.0.2:8002
    "#]], &expect![[r#"
        {"active":1,"at":"10.77.0.2:8001","backend":0,"closed":0,"consecutive":0,"ejected_ms":0,"established":1,"failed":0,"opened":1,"rtt_us":"*"}
        {"active":0,"at":"10.77.0.2:8002","backend":1,"closed":0,"consecutive":0,"ejected_ms":0,"established":0,"failed":0,"opened":0,"rtt_us":"*"}
    "#]])?;
    Command::well(&["map", "dump", "SERVICE_STATS"], &["BIND_SEQ", "NO_LISTENER_SEQ"], &["bind_seq", "no_listener_seq"]).prints(
        &lab,
        &expect![[r#"
            SERVICE  OPENED  CLOSED  ACTIVE  REFUSED  BIND_SEQ  NO_LISTENER_SEQ  NAME
            0  1  0  1  0  *  *  /web
        "#]],
        &expect![[r#"
            {"active":1,"bind_seq":"*","closed":0,"name":"/web","no_listener_seq":"*","opened":1,"refused":0,"service":0}
        "#]],
    )?;
    Command::well(&["map", "dump", "DRAINED"], &[], &[]).prints(
        &lab,
        &expect![[r#"
        BACKEND  GENERATION  AT
        1  1  10.77.0.2:8002
    "#]],
        &expect![[r#"
        {"at":"10.77.0.2:8002","backend":1,"generation":1}
    "#]],
    )?;
    Command::well(&["map", "dump", "PORTS"], &[], &[]).prints(
        &lab,
        &expect![[r#"
        PORT  PROTOCOL
        1234  tcp
    "#]],
        &expect![[r#"
        {"port":1234,"protocol":"tcp"}
    "#]],
    )?;
    Command::well(&["map", "dump", "SOCKETS"], &["LOCAL", "PID"], &["local", "pid"]).prints(
        &lab,
        &expect![[r#"
            PROTOCOL  LOCAL  DESTINATION  BACKEND_ADDRESS  BACKEND  GENERATION  COUNTED  PID
            tcp  *  127.0.0.1:1234  10.77.0.2:8001  0  1  yes  *
        "#]],
        &expect![[r#"
            {"backend":0,"backend_address":"10.77.0.2:8001","counted":true,"destination":"127.0.0.1:1234","generation":1,"local":"*","pid":"*","protocol":"tcp"}
        "#]],
    )?;
    Command::well(&["map", "dump", "SERVICE_NAMES"], &[], &[]).prints(
        &lab,
        &expect![[r#"
        ID  NAME
        0  /web
    "#]],
        &expect![[r#"
        {"id":0,"name":"/web"}
    "#]],
    )?;
    Command::well(&["map", "dump", "BACKEND_NAMES"], &["NAME"], &["name"]).prints(
        &lab,
        &expect![[r#"
        ID  NAME
        0  *
        1  *
    "#]],
        &expect![[r#"
        {"id":0,"name":"*"}
        {"id":1,"name":"*"}
    "#]],
    )?;
    Command::well(&["map", "dump", "CONFIG"], &["VALUE"], &["value"]).prints(
        &lab,
        &expect![[r#"
        FIELD  VALUE
        abi  *
        loopback  *
        host_netns  *
        cgroup  *
        heartbeat_s_ago  *
        synced_s_ago  *
        agent  *
        pid  *
        agent_tgid  *
        bypass_mark  *
        checks_listeners  *
        root_wins  *
        checks_excluded  *
        event_sample_rate  *
        snat_first  *
        snat_last  *
        first_unprivileged_port  *
    "#]],
        &expect![[r#"
        {"field":"abi","value":"*"}
        {"field":"loopback","value":"*"}
        {"field":"host_netns","value":"*"}
        {"field":"cgroup","value":"*"}
        {"field":"heartbeat_s_ago","value":"*"}
        {"field":"synced_s_ago","value":"*"}
        {"field":"agent","value":"*"}
        {"field":"pid","value":"*"}
        {"field":"agent_tgid","value":"*"}
        {"field":"bypass_mark","value":"*"}
        {"field":"checks_listeners","value":"*"}
        {"field":"root_wins","value":"*"}
        {"field":"checks_excluded","value":"*"}
        {"field":"event_sample_rate","value":"*"}
        {"field":"snat_first","value":"*"}
        {"field":"snat_last","value":"*"}
        {"field":"first_unprivileged_port","value":"*"}
    "#]],
    )?;
    Command::well(&["map", "dump", "COUNTERS"], &["COUNT"], &["count"]).prints(&lab, &expect![[r#"
        VERDICT  COUNT  MEANING
        no_backend  *  Refused: the service has no backend that this socket can reach
        backends_full  *  Refused: every eligible backend is at its maxconn
        service_full  *  Refused: the service is at its maxconn for connections from this host
        not_allowed  *  Refused: the allow list of the service does not name this client
        bound_loopback  *  ..nd to a loopback address, and the service has no backend on this host
        unknown_netns  *  .. client's cgroup, and the address of its network namespace is unknown
        translated  *  Sent to an eligible backend
        drained  *  Sent to a draining backend, because the service has no active one
        panic_mode  *  Sent to an ejected backend, because the service has no other
        affinity_hit  *  Sent to the backend of an earlier connection of this client
        udp_cached  *  A datagram was sent to the backend of the datagram before it
        no_socket_state  *  ..t (no memory): not counted as open, and getpeername shows the backend
        reverse_translated  *  .. or a sender address was translated back to the program's destination
        local_listener  *  Left alone: another program receives at the destination
        bypassed  *  ..he agent's own, has the bypass mark, or belongs to an excluded cgroup
        port_bound  *  A program bound a service port
        failed  *  A backend refused a connection or did not answer it
        abandoned  *  ..ram gave up a connection within a second, before the backend answered
        ejected  *  A backend was ejected
        ejection_capped  *  ..ailed backend was not ejected: half of its service is ejected already
        stale_slot  *  A slot named a backend whose id has a new owner; another slot was tried
        stale_close  *  ..sed after its backend's id got a new owner: the close was not counted
        event_dropped  *  An event was dropped: the ring buffer was full or had no reader
        forwarded  *  A remote client's connection was sent to a backend on another machine
        forwarded_local  *  A remote client's connection was sent to a backend on this host
        forwarded_xdp  *  ..et was forwarded by XDP, before it reached the kernel's network stack
        not_exposed  *  Left alone: a remote client connected to a service that is not exposed
        snat_ports_exhausted  *  Left alone: no SNAT port was free for a remote client's connection
        no_return_path  *  ..ses an interface without hooks, which would not intercept the replies
        no_route  *  ..ne or dropped: this host has no route to the backend or to the client
        conntrack_full  *  ..: no memory for the conntrack entries of a remote client's connection
        unknown_fragment  *  ..a packet whose first fragment has not arrived or is not for a service
        unreadable  *  ..ket with more headers than the hooks read, or with a truncated header
        rewrite_failed  *  Dropped: the kernel had no memory to rewrite a packet
        mtu_exceeded  *  ..acket exceeded the MTU of its route: an ICMP error went to its sender
        ttl_exceeded  *  ..TL or hop limit of a packet ran out: an ICMP error went to its sender
        icmp_error_forwarded  *  ..ror about a remote client's connection was forwarded to the other end
        snat_port_preempted  *  ..en connection lost its SNAT port to another one: all ports were taken
        bind_refused  *  A program without privileges bound a service port and got EADDRINUSE
    "#]], &expect![[r#"
        {"count":"*","meaning":"Refused: the service has no backend that this socket can reach","verdict":"no_backend"}
        {"count":"*","meaning":"Refused: every eligible backend is at its maxconn","verdict":"backends_full"}
        {"count":"*","meaning":"Refused: the service is at its maxconn for connections from this host","verdict":"service_full"}
        {"count":"*","meaning":"Refused: the allow list of the service does not name this client","verdict":"not_allowed"}
        {"count":"*","meaning":"Refused: the socket is bound to a loopback address, and the service has no backend on this host","verdict":"bound_loopback"}
        {"count":"*","meaning":"Refused: the allow list of the service does not name this client's cgroup, and the address of its network namespace is unknown","verdict":"unknown_netns"}
        {"count":"*","meaning":"Sent to an eligible backend","verdict":"translated"}
        {"count":"*","meaning":"Sent to a draining backend, because the service has no active one","verdict":"drained"}
        {"count":"*","meaning":"Sent to an ejected backend, because the service has no other","verdict":"panic_mode"}
        {"count":"*","meaning":"Sent to the backend of an earlier connection of this client","verdict":"affinity_hit"}
        {"count":"*","meaning":"A datagram was sent to the backend of the datagram before it","verdict":"udp_cached"}
        {"count":"*","meaning":"Sent to a backend without state for the socket (no memory): not counted as open, and getpeername shows the backend","verdict":"no_socket_state"}
        {"count":"*","meaning":"A peer name or a sender address was translated back to the program's destination","verdict":"reverse_translated"}
        {"count":"*","meaning":"Left alone: another program receives at the destination","verdict":"local_listener"}
        {"count":"*","meaning":"Left alone: the socket is the agent's own, has the bypass mark, or belongs to an excluded cgroup","verdict":"bypassed"}
        {"count":"*","meaning":"A program bound a service port","verdict":"port_bound"}
        {"count":"*","meaning":"A backend refused a connection or did not answer it","verdict":"failed"}
        {"count":"*","meaning":"A program gave up a connection within a second, before the backend answered","verdict":"abandoned"}
        {"count":"*","meaning":"A backend was ejected","verdict":"ejected"}
        {"count":"*","meaning":"A failed backend was not ejected: half of its service is ejected already","verdict":"ejection_capped"}
        {"count":"*","meaning":"A slot named a backend whose id has a new owner; another slot was tried","verdict":"stale_slot"}
        {"count":"*","meaning":"A socket closed after its backend's id got a new owner: the close was not counted","verdict":"stale_close"}
        {"count":"*","meaning":"An event was dropped: the ring buffer was full or had no reader","verdict":"event_dropped"}
        {"count":"*","meaning":"A remote client's connection was sent to a backend on another machine","verdict":"forwarded"}
        {"count":"*","meaning":"A remote client's connection was sent to a backend on this host","verdict":"forwarded_local"}
        {"count":"*","meaning":"A packet was forwarded by XDP, before it reached the kernel's network stack","verdict":"forwarded_xdp"}
        {"count":"*","meaning":"Left alone: a remote client connected to a service that is not exposed","verdict":"not_exposed"}
        {"count":"*","meaning":"Left alone: no SNAT port was free for a remote client's connection","verdict":"snat_ports_exhausted"}
        {"count":"*","meaning":"Left alone: the route to the backend uses an interface without hooks, which would not intercept the replies","verdict":"no_return_path"}
        {"count":"*","meaning":"Left alone or dropped: this host has no route to the backend or to the client","verdict":"no_route"}
        {"count":"*","meaning":"Left alone: no memory for the conntrack entries of a remote client's connection","verdict":"conntrack_full"}
        {"count":"*","meaning":"Left alone: a later fragment of a packet whose first fragment has not arrived or is not for a service","verdict":"unknown_fragment"}
        {"count":"*","meaning":"Left alone: a packet with more headers than the hooks read, or with a truncated header","verdict":"unreadable"}
        {"count":"*","meaning":"Dropped: the kernel had no memory to rewrite a packet","verdict":"rewrite_failed"}
        {"count":"*","meaning":"A packet exceeded the MTU of its route: an ICMP error went to its sender","verdict":"mtu_exceeded"}
        {"count":"*","meaning":"The TTL or hop limit of a packet ran out: an ICMP error went to its sender","verdict":"ttl_exceeded"}
        {"count":"*","meaning":"An ICMP error about a remote client's connection was forwarded to the other end","verdict":"icmp_error_forwarded"}
        {"count":"*","meaning":"A remote client's half-open connection lost its SNAT port to another one: all ports were taken","verdict":"snat_port_preempted"}
        {"count":"*","meaning":"A program without privileges bound a service port and got EADDRINUSE","verdict":"bind_refused"}
    "#]])?;
    for map in ["AFFINITY", "SOURCE_RANGES", "SOURCE_CGROUPS", "EXCLUDED"] {
        Command::well(&["map", "dump", map], &[], &[]).prints(&lab, &expect!["no entries\n"], &expect![""])?;
    }
    Command::well(&["map", "dump", "ADDRESSES"], &["ADDRESS"], &["address"]).prints(
        &lab,
        &expect![[r#"
        ADDRESS  CLASS
        *  1
        *  1
    "#]],
        &expect![[r#"
        {"address":"*","class":1}
        {"address":"*","class":1}
    "#]],
    )?;
    Ok(())
}
