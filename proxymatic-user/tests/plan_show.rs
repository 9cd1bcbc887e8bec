//! `proxymatic plan show` as an operator runs it: the program itself, against the simulated Marathon. Needs no root.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, path::Path, process::Output};

use marathon_sim::{Fault, ShortApp, Sim, StatusCode};
use serde_json::{Value, json as value};
use tokio::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_proxymatic");

/// Runs the program with an empty environment.
async fn proxymatic(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).env_clear().output().await.unwrap()
}

/// Runs the program as the user nobody if this test runs as root. The program's folder must be readable by that user.
async fn proxymatic_as_nobody(arguments: &[&str]) -> Output {
    if !nix::unistd::geteuid().is_root() {
        return proxymatic(arguments).await;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("proxymatic");
    std::fs::copy(PROGRAM, &program).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    Command::new(program).args(arguments).env_clear().uid(65_534).gid(65_534).output().await.unwrap()
}

async fn json_of(arguments: &[&str]) -> (Value, i32) {
    json(proxymatic(arguments).await)
}

fn json(output: Output) -> (Value, i32) {
    let text = String::from_utf8(output.stdout).unwrap();
    let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    (json, output.status.code().unwrap())
}

async fn sim() -> Sim {
    let sim = Sim::start().await.unwrap();
    let app: ShortApp = serde_json::from_value(
        value!({ "id": "/shop/web", "servicePort": 1234, "tasks": [{ "host": "10.0.0.1", "port": 31000 }] }),
    )
    .unwrap();
    sim.create(app).unwrap();
    sim
}

fn file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn plan_show_works_for_an_ordinary_user() {
    let sim = sim().await;
    let line = ["-j", "plan", "show", "--marathon", &sim.url(), "--bpffs", "/nowhere", "--first-answer", "0"];
    let (json, code) = json(proxymatic_as_nobody(&line).await);
    assert_eq!(code, 0, "{json}");
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["operations", "services", "warnings"]);
    let service = &json["services"][0];
    let shown = (&service["name"], &service["port"], &service["source"], &service["address"]);
    assert_eq!(shown, (&value!("/shop/web"), &value!(1234), &value!("marathon"), &Value::Null));
    let backend = &service["backends"][0];
    let shown = (&backend["address"], &backend["port"], &backend["state"], &backend["total"]);
    assert_eq!(shown, (&value!("10.0.0.1"), &value!(31000), &value!("active"), &value!(0)));
    let operations: Vec<_> = json["operations"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for operation in ["put backend 0 10.0.0.1:31000 active weight 500", "put frontend 1234/tcp class 1 service 0"] {
        assert!(operations.contains(&operation), "{operations:?}");
    }
    assert_eq!(json["warnings"], value!([]));
}

#[tokio::test]
async fn new_task_without_a_check_is_planned_as_warming() {
    let sim = sim().await;
    let reason = "new, without a check, and has not been probed yet; used at its first answer, in ";
    // Long enough for a busy machine.
    let line = ["plan", "show", "--marathon", &sim.url(), "--bpffs", "/nowhere", "--first-answer", "60s"];
    let (json, code) = json_of(&[&["-j"], &line[..]].concat()).await;
    assert_eq!((code, &json["services"][0]["backends"][0]["state"]), (0, &value!("warming")), "{json}");
    let awaited = &json["awaited"][0];
    assert_eq!((&awaited["service"], &awaited["backend"]), (&value!("/shop/web"), &value!("10.0.0.1:31000")));
    assert!(awaited["reason"].as_str().unwrap().starts_with(reason), "{json}");
    let text = String::from_utf8(proxymatic(&line).await.stdout).unwrap();
    assert!(text.contains("\nwarming    /shop/web: 10.0.0.1:31000 is new, without a check, and "), "{text}");
    let (json, code) = json_of(&["-j", "plan", "show", "--marathon", &sim.url(), "--first-answer", "5"]).await;
    assert_eq!(code, 2);
    let error = json["error"].as_str().unwrap();
    assert!(
        error.contains("--first-answer (or FIRST_ANSWER) 5: must be a time with its unit of at most 60 s"),
        "{error}"
    );
}

#[tokio::test]
async fn plan_show_table_names_what_it_compared_with() {
    let sim = sim().await;
    let output = proxymatic(&["plan", "--marathon", &sim.url(), "--bpffs", "/nowhere"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in
        ["/shop/web", "10.0.0.1:31000", "compared with empty tables", "  put frontend 1234/tcp class 1 service 0\n"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn conflict_of_two_sources_gives_a_warning_and_exit_code_1() {
    let sim = sim().await;
    let folder = tempfile::tempdir().unwrap();
    let content = r#"{"services": [{"name": "mine", "port": 1234, "backends": [{"address": "10.9.9.9", "port": 1}]}]}"#;
    let path = file(folder.path(), "services.json", content);
    let line = ["-j", "plan", "show", "--marathon", &sim.url(), "--file", &path, "--bpffs", "/nowhere"];
    let (json, code) = json_of(&line).await;
    assert_eq!(code, 1, "{json}");
    assert_eq!(json["services"][0]["source"], "file");
    assert_eq!(json["services"][0]["backends"][0]["address"], "10.9.9.9");
    assert_eq!(json["warnings"][0]["app"], "/shop/web");
    assert!(json["warnings"][0]["reason"].as_str().unwrap().contains("comes first"), "{json}");
}

#[tokio::test]
async fn app_that_may_not_join_gives_a_warning_and_exit_code_1() {
    let sim = sim().await;
    let evil = value!({ "id": "/a/evil", "servicePort": 1234, "tasks": [{ "host": "10.6.6.6", "port": 6666 }] });
    sim.create(serde_json::from_value(evil).unwrap()).unwrap();
    let url = sim.url();
    let line = ["-j", "plan", "show", "--marathon", &url, "--bpffs", "/nowhere"];
    for (flags, service, left_out) in [
        (&[][..], "/shop/web", Some("/a/evil")),
        (&["--owner", "1234=/a/evil"], "/a/evil", Some("/shop/web")),
        (&["--share", "anyone"], "/shop/web", None),
    ] {
        let (json, code) = json_of(&[&line[..], flags].concat()).await;
        assert_eq!((code, &json["services"][0]["name"]), (1, &value!(service)), "{json}");
        let backends = json["services"][0]["backends"].as_array().unwrap().len();
        assert_eq!(backends, if left_out.is_some() { 1 } else { 2 }, "{json}");
        assert_eq!(json["warnings"].as_array().unwrap().len(), 1, "{json}");
        let reason = json["warnings"][0]["reason"].as_str().unwrap();
        match left_out {
            Some(app) => {
                assert_eq!(json["warnings"][0]["app"], app);
                assert!(reason.starts_with(&format!("service port 1234/tcp belongs to {service}, ")), "{reason}");
            }
            None => assert!(reason.contains("claimed by /a/evil and /shop/web; their tasks share it"), "{reason}"),
        }
    }
}

#[tokio::test]
async fn source_without_an_answer_gives_exit_code_2() {
    let sim = sim().await;
    sim.fault(Fault::status(StatusCode::SERVICE_UNAVAILABLE));
    let line = ["-j", "plan", "show", "--marathon", &sim.url(), "--wait", "60", "--bpffs", "/nowhere"];
    let (json, code) = json_of(&line).await;
    assert_eq!(code, 2, "{json}");
    let error = json["error"].as_str().unwrap();
    assert!(error.starts_with("marathon: ") && error.contains("503"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let broken = file(folder.path(), "broken.toml", "services = 1\n");
    let (json, code) = json_of(&["-j", "plan", "--file", &broken, "--wait", "60"]).await;
    assert_eq!(code, 2, "{json}");
    assert!(json["error"].as_str().unwrap().contains("broken.toml line 1: "), "{json}");
}

#[tokio::test]
async fn plan_show_without_a_source_gives_exit_code_2() {
    let (json, code) = json_of(&["-j", "plan", "show"]).await;
    assert_eq!(code, 2);
    assert!(json["error"].as_str().unwrap().starts_with("no source of services"), "{json}");
}
