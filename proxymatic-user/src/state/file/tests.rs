//! The file on a real disk: what is loaded, what is renamed, and what is left alone.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use tempfile::TempDir;

use super::*;
use crate::{
    model::{Protocol, Service, ServiceKey, Snapshot},
    state::Saved,
};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn of(urls: &[&str]) -> BTreeSet<String> {
    urls.iter().map(|url| (*url).to_owned()).collect()
}

/// A state file of an agent that reads Marathon at these URLs.
fn file(folder: &TempDir, urls: &[&str]) -> StateFile {
    StateFile::new(folder.path().join("state.json"), [(SourceId::Marathon, of(urls))].into())
}

fn state(source: SourceId, urls: &[&str]) -> State {
    let services = [(ServiceKey::host(1234, Protocol::Tcp), Service::default().into())].into();
    let snapshot = Snapshot { services, warnings: Vec::new() };
    State { sources: [(source, Saved { of: of(urls), answered_ms: 7, snapshot })].into(), ..State::default() }
}

fn names(folder: &TempDir) -> Vec<String> {
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

#[test]
fn written_state_is_loaded_and_private_to_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder, &["http://a"]);
    let state = state(SourceId::Marathon, &["http://a"]);
    for _ in 0..2 {
        file.write(&state).unwrap();
        let Loaded { state: loaded, trouble } = file.load(NOW);
        assert_eq!((loaded, trouble), (state.clone(), None));
        // Another program may change the mode; the next write restores it.
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    }
    assert_eq!(names(&folder), ["state.json"], "no other file may stay");
}

#[test]
fn missing_file_is_no_problem() {
    let folder = tempfile::tempdir().unwrap();
    let Loaded { state, trouble } = file(&folder, &["http://a"]).load(NOW);
    assert_eq!((state, trouble), (State::default(), None));
}

#[test]
fn damaged_file_is_renamed_and_only_three_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder, &["http://a"]);
    for second in 1..=12 {
        file.write(&state(SourceId::Marathon, &["http://a"])).unwrap();
        let whole = fs::read(file.path()).unwrap();
        fs::write(file.path(), &whole[..whole.len() - second]).unwrap();
        let Loaded { state, trouble } = file.load(NOW + Duration::from_secs(second as u64));
        assert_eq!(state, State::default());
        let trouble = trouble.unwrap();
        assert!(trouble.starts_with("--state-file /") && trouble.contains("bytes after its header"), "{trouble}");
        assert!(trouble.contains(&format!("it was renamed to {}.aside-{second}", file.path().display())), "{trouble}");
    }
    assert_eq!(names(&folder), ["state.json.aside-10", "state.json.aside-11", "state.json.aside-12"]);
}

#[test]
fn one_common_url_means_the_same_marathon() {
    let folder = tempfile::tempdir().unwrap();
    let written = state(SourceId::Marathon, &["http://a", "http://b"]);
    let file = file(&folder, &["http://b", "http://c"]);
    file.write(&written).unwrap();
    let Loaded { state: loaded, trouble } = file.load(NOW);
    assert_eq!((loaded, trouble), (written, None));

    for other in [state(SourceId::Marathon, &["http://x"]), state(SourceId::Registrator, &["http://b"])] {
        file.write(&other).unwrap();
        let Loaded { state: loaded, trouble } = file.load(NOW);
        assert_eq!(loaded, State::default());
        let trouble = trouble.unwrap();
        assert!(trouble.contains("but this agent reads marathon at http://b or http://c"), "{trouble}");
        assert!(trouble.contains("renamed to") && !file.path().exists(), "{trouble}");
    }
}

#[test]
fn answers_of_a_removed_source_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder, &["http://a"]);
    let mut both = state(SourceId::Marathon, &["http://a"]);
    both.sources.extend(state(SourceId::File, &["/etc/services.toml"]).sources);
    file.write(&both).unwrap();
    let Loaded { state: loaded, trouble } = file.load(NOW);
    assert_eq!((loaded, trouble), (state(SourceId::Marathon, &["http://a"]), None));
}

#[test]
fn path_that_is_not_a_regular_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder, &["http://a"]);
    for make in [
        (|path: &Path| fs::create_dir(path)) as fn(&Path) -> io::Result<()>,
        |path| fs::remove_dir(path).and_then(|()| symlink("/dev/zero", path)),
        |path| {
            fs::remove_file(path)?;
            Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU)?)
        },
    ] {
        make(file.path()).unwrap();
        let trouble = file.load(NOW).trouble.unwrap();
        assert!(trouble.contains("cannot be read: it is not a regular file; the agent starts without it"), "{trouble}");
        assert_eq!(names(&folder), ["state.json"]);
    }
}

#[test]
fn only_the_last_missing_folder_is_created() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| StateFile::new(folder.path().join(path), BTreeMap::new());
    let saved = state(SourceId::File, &["/f"]);
    at("one/state.json").write(&saved).unwrap();
    let trouble = at("two/three/state.json").write(&saved).unwrap_err();
    let start =
        format!("--state-file {}/two/three/state.json cannot be written: No such file", folder.path().display());
    assert!(
        trouble.starts_with(&start)
            && trouble.contains("; make space and grant write permission there, or choose another path"),
        "{trouble}"
    );
    assert_eq!(names(&folder), ["one"]);
}
