//! The summary of an event: how soon to read, which app, and whether a task has started or ended. Pure and total.
//!
//! Events are hints: they may be lost, duplicated or late. The next response corrects whatever an event has changed.

use serde::Deserialize;

use super::{schedule::Hint, sse::Event, task_started::TaskStarted};

/// The summary of one event, or of a change of the stream itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventSummary {
    /// How soon to read.
    pub(super) hint: Hint,
    /// The app that changed; `None` for all of them.
    pub(super) app: Option<String>,
    /// The task that has ended.
    pub(super) ended: Option<TaskEnded>,
    /// The task that has started.
    pub(super) started: Option<TaskStarted>,
}

/// A task that has ended, or that is about to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TaskEnded {
    /// The id of the task.
    pub(super) task: String,
    /// Whether the task still runs, so that its open connections go on.
    pub(super) still_running: bool,
}

impl EventSummary {
    /// Returns the summary of an event that concerns all apps.
    pub(super) fn of_all(hint: Hint) -> Self {
        Self { hint, app: None, ended: None, started: None }
    }
}

/// The fields of an event's data that are used.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Data {
    app_id: Option<String>,
    run_spec_id: Option<String>,
    task_id: Option<String>,
    task_status: Option<String>,
    app_definition: Option<Definition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Definition {
    id: Option<String>,
}

/// Returns the summary of an event. An event that cannot be read means that something has changed.
pub(super) fn summarize(event: &Event) -> EventSummary {
    let data: Data = serde_json::from_str(&event.data).unwrap_or_default();
    let app = data.app_id.or(data.run_spec_id);
    let changed = |app| EventSummary { hint: Hint::Changed, app, ended: None, started: None };
    match event.name.as_str() {
        "status_update_event" => match data.task_status.as_deref().unwrap_or_default() {
            "TASK_RUNNING" => EventSummary { started: TaskStarted::parse(&event.data), ..changed(app) },
            "TASK_KILLING" => ended(app, data.task_id, true),
            "TASK_KILLED"
            | "TASK_FINISHED"
            | "TASK_FAILED"
            | "TASK_ERROR"
            | "TASK_GONE"
            | "TASK_GONE_BY_OPERATOR"
            | "TASK_DROPPED" => ended(app, data.task_id, false),
            // Such a task may come back, so the listing decides.
            "TASK_LOST" | "TASK_UNKNOWN" => EventSummary { hint: Hint::Urgent, ..changed(app) },
            _ => changed(app),
        },
        "unhealthy_instance_kill_event" | "unhealthy_task_kill_event" => ended(app, data.task_id, true),
        // Their instances are ignored: a new task may have the instance of a task that has ended.
        "instance_changed_event" | "instance_health_changed_event" | "health_status_changed_event" => changed(app),
        "api_post_event" => changed(data.app_definition.and_then(|it| it.id)),
        // Deployments, groups, pods, the connection to Mesos: a listing shows what they change.
        _ => changed(None),
    }
}

fn ended(app: Option<String>, task: Option<String>, still_running: bool) -> EventSummary {
    let ended = task.filter(|task| !task.is_empty()).map(|task| TaskEnded { task, still_running });
    // If the task is known, it leaves at once. Then the read is not urgent, and agents need not read all at once.
    EventSummary { hint: if ended.is_some() { Hint::Changed } else { Hint::Urgent }, app, ended, started: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn summary(name: &str, data: &str) -> EventSummary {
        summarize(&Event { name: name.into(), data: data.into() })
    }

    #[test]
    fn status_that_ends_a_task_names_it() {
        for (status, still_running) in
            [("KILLING", true), ("KILLED", false), ("FAILED", false), ("FINISHED", false), ("GONE_BY_OPERATOR", false)]
        {
            let summary = summary(
                "status_update_event",
                &format!(r#"{{"taskStatus":"TASK_{status}","taskId":"t","appId":"/a","host":null}}"#),
            );
            let ended = Some(TaskEnded { task: "t".into(), still_running });
            assert_eq!(
                summary,
                EventSummary { hint: Hint::Changed, app: Some("/a".into()), ended, started: None },
                "{status}"
            );
        }
        let kill = summary("unhealthy_instance_kill_event", r#"{"taskId":"t","appId":"/a"}"#);
        assert_eq!(kill.ended, Some(TaskEnded { task: "t".into(), still_running: true }));
    }

    #[test]
    fn status_of_a_task_that_may_come_back_ends_nothing() {
        for status in ["TASK_RUNNING", "TASK_LOST", "TASK_UNREACHABLE", "TASK_UNKNOWN", "TASK_NEW_WORD"] {
            let summary = summary("status_update_event", &format!(r#"{{"taskStatus":"{status}","taskId":"t"}}"#));
            assert_eq!(summary.ended, None, "{status}");
        }
        assert_eq!(summary("instance_changed_event", r#"{"condition":"Killed","instanceId":"i"}"#).ended, None);
        assert_eq!(summary("deployment_success", r#"{"taskStatus":"TASK_FAILED","taskId":"t"}"#).ended, None);
    }

    #[test]
    fn event_of_one_app_names_it_and_others_name_none() {
        for (name, data, app) in [
            ("instance_changed_event", r#"{"runSpecId":"/a","condition":"Running"}"#, Some("/a")),
            ("health_status_changed_event", r#"{"appId":"/a","alive":true}"#, Some("/a")),
            ("api_post_event", r#"{"appDefinition":{"id":"/a","cmd":"x"}}"#, Some("/a")),
            ("api_post_event", r#"{"appDefinition":7}"#, None),
            ("app_terminated_event", r#"{"appId":"/a"}"#, None),
            ("group_change_success", r#"{"groupId":"/"}"#, None),
            ("status_update_event", "not JSON", None),
        ] {
            let summary = summary(name, data);
            assert_eq!((summary.app.as_deref(), summary.hint), (app, Hint::Changed), "{name} {data}");
        }
    }

    proptest! {
        #[test]
        fn any_data_has_a_summary(name in "[a-z_]{0,30}", data in any::<String>()) {
            summary(&name, &data);
            summary("status_update_event", &data);
        }
    }
}
