//! Checks of docker-compose's files, with docker-compose itself and without running any container.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use proxymatic_tests::failure::TestResult;

use super::daemon::{checkout, compose, said};

/// Images of the project, built from the checkout.
const OURS: [&str; 2] = ["proxymatic", "proxymatic-demo"];

#[test]
fn compose_files_are_valid_and_use_addresses_for_host_names() -> TestResult {
    let config = said(compose().arg("config"))?;
    for service in ["zookeeper", "mesos-master", "mesos-slave", "marathon", "apps", "gateway", "events"] {
        assert!(config.contains(&format!("  {service}:\n")), "{config}");
    }
    for name in ["MESOS_HOSTNAME", "MARATHON_HOSTNAME", "LIBPROCESS_IP", "MESOS_ADVERTISE_IP"] {
        let said: BTreeSet<_> = config.lines().filter_map(|line| line.trim().strip_prefix(name)).collect();
        assert_eq!(said, BTreeSet::from([": 172.17.0.1"]), "{name}");
    }
    let elsewhere = said(compose().arg("config").env("HOST_ADDRESS", "192.0.2.1"))?;
    assert!(elsewhere.contains("MESOS_HOSTNAME: 192.0.2.1") && !elsewhere.contains("172.17.0.1"), "{elsewhere}");
    Ok(())
}

#[test]
fn third_party_images_in_compose_files_name_their_origin() -> TestResult {
    let file = read("docker-compose.yml")?;
    let mut others = 0;
    for (image, before) in images(&file) {
        if OURS.contains(&image) {
            continue;
        }
        others += 1;
        assert!(image.rsplit_once(':').is_some_and(|(_, tag)| tag.contains('.')), "{image} has no version");
        let seen = before.iter().rev().take_while(|line| line.starts_with('#')).any(|line| {
            line.strip_prefix("# seen: ").and_then(|it| it.strip_prefix(image)).is_some_and(|it| it.starts_with(' '))
        });
        assert!(seen, "the lines before `image: {image}` do not begin with `# seen: {image} ` and say where");
    }
    assert_eq!(others, 4);
    let offline = read("tests/compose/sim.yml")?;
    assert!(images(&offline).iter().all(|(image, _)| OURS.contains(image)), "{offline}");
    Ok(())
}

#[test]
fn documents_explain_each_gateway_capability_and_mount() -> TestResult {
    let said = read("docs/container.md")?;
    let capabilities = capabilities()?;
    for name in &capabilities {
        assert!(said.contains(&format!("| `{name}` | ")), "docs/container.md has no row for {name}");
        assert!(said.contains(&format!("--cap-add {name} ")), "docs/container.md has no --cap-add {name}");
    }
    assert_eq!(said.matches("--cap-add ").count(), capabilities.len(), "no others");
    for place in ["/sys/fs/bpf", "/host/cgroup", "/var/lib/proxymatic"] {
        assert!(said.contains(&format!("| `{place}` | ")), "docs/container.md has no row for {place}");
    }
    Ok(())
}

/// Returns the capabilities of the gateway in docker-compose.yml.
pub(crate) fn capabilities() -> Result<Vec<String>> {
    let file = read("docker-compose.yml")?;
    let (_, gateway) = file.split_once("\n  gateway:\n").context("docker-compose.yml has no gateway")?;
    let (_, list) = gateway.split_once("cap_add: [").context("the gateway has no cap_add")?;
    let (list, _) = list.split_once(']').context("cap_add does not end")?;
    Ok(list.split(", ").map(str::to_owned).collect())
}

/// Returns each image with the lines before it, trimmed.
fn images(file: &str) -> Vec<(&str, Vec<&str>)> {
    let lines: Vec<_> = file.lines().map(str::trim).collect();
    let image = |nth: usize| Some((lines[nth].strip_prefix("image: ")?, lines[..nth].to_vec()));
    (0..lines.len()).filter_map(image).collect()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(checkout().join(path)).with_context(|| format!("read {path}"))
}
