//! A name server over UDP and TCP: dig queries it, and nginx resolves its upstream with it.

use std::fs;

use anyhow::Result;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;
use proxymatic_tests::net::host_address6;
use proxymatic_tests::process::Process;

use super::{LONGEST, SERVER, answers, open_and_ever, program, publish, run, text};
use crate::fixtures::cluster::curl;
use crate::fixtures::word_replicas::{At, WordService};

const NAMES: WordService = WordService { app: "/names", port: 53, replicas: &[(At::V4(2, 7053), "names")] };
const NAMES6: WordService = WordService { app: "/names6", port: 1053, replicas: &[(At::V6(2, 7053), "names")] };
const WEB: WordService = WordService { app: "/web", port: 1234, replicas: &[(At::V4(2, 8001), "web")] };

#[test]
fn dig_is_answered_over_udp_and_tcp_from_its_destination() -> TestResult {
    let lab = Lab::start(2)?;
    let _server = nameserver(&lab)?;
    let _agent = publish(&lab, &[NAMES, NAMES6], &[])?;
    // dig's IPv6 sockets are IPV6_V6ONLY, so this replica must have an IPv6 address.
    for (host, port) in [("127.0.0.1", 53), ("10.77.0.1", 53), ("::1", 1053), ("fd77::1", 1053)] {
        for over in ["+notcp", "+tcp"] {
            let (server, port) = (format!("@{host}"), port.to_string());
            let said = run(&lab, "dig", &[&server, "-p", &port, over, "+tries=1", "+time=30", "answer.test"])?;
            let (answer, server) = (said.contains("192.0.2.53"), format!("SERVER: {host}#{port}({host})"));
            assert!(answer && said.contains(&server) && !said.contains("unexpected source"), "{said}");
        }
    }
    assert_eq!(open_and_ever(&lab)?, (0, 8));
    Ok(())
}

#[test]
fn nginx_reaches_resolver_and_upstream_by_service_ports() -> TestResult {
    let lab = Lab::start(2)?;
    let _server = nameserver(&lab)?;
    let _web = lab.replica(2, 8001, "web")?;
    let _agent = publish(&lab, &[NAMES, WEB], &[])?;
    let folder = lab.run_dir().join("nginx");
    fs::create_dir(&folder)?;
    let config = folder.join("nginx.conf");
    fs::write(
        &config,
        "daemon off; user root; pid nginx.pid; error_log stderr notice;
         events {}
         http {
           access_log off;
           resolver 127.0.0.1 ipv6=off valid=1s;
           server {
             listen 10.77.0.1:8088;
             location / { set $upstream web.test; proxy_pass http://$upstream:1234; }
           }
         }",
    )?;
    let prefix = format!("{}/", text(&folder)?);
    let arguments = ["-p", &prefix, "-e", "stderr", "-c", text(&config)?];
    let _nginx = lab.host(1).spawn(&program("nginx")?, &arguments)?;
    eventually_ok("nginx answers", LONGEST, || curl(&lab, "http://10.77.0.1:8088/"))?;
    for _ in 0..20 {
        assert_eq!(curl(&lab, "http://10.77.0.1:8088/")?, "web\n10.77.0.1:8088");
    }
    let services = lab.host(1).services()?;
    let ever = |name: &str, protocol: &str| {
        let mut found = services.iter().filter(|row| row.name == name && row.protocol == protocol);
        found.next().map_or(0, |row| row.backends[0].total)
    };
    assert!(ever("/names", "udp") >= 1 && ever("/web", "tcp") >= 21, "{services:?}");
    Ok(())
}

/// Resolves two names: one for dig, and one that resolves to this host's loopback address.
pub(crate) fn nameserver(lab: &Lab) -> Result<Process> {
    let config = lab.run_dir().join("dnsmasq.conf");
    let listen = format!("listen-address={SERVER},{}\nport=7053\nbind-interfaces\n", host_address6(2));
    let names = "no-resolv\nno-hosts\naddress=/answer.test/192.0.2.53\naddress=/web.test/127.0.0.1\n";
    fs::write(&config, format!("{listen}{names}user=root\npid-file=\n"))?;
    let arguments = ["--keep-in-foreground", "-C", text(&config)?];
    let server = lab.host(2).spawn(&program("dnsmasq")?, &arguments)?;
    let question = ["+short", "+tries=1", "+time=5", "-p", "7053", "@10.77.0.2", "answer.test"];
    answers("dnsmasq", || run(lab, "dig", &question), "192.0.2.53")?;
    Ok(server)
}
