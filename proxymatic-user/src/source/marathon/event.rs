//! What an event says: how soon to look, at which app, and whether a task has begun to run or come to its end. Pure and
//! total.
//!
//! Events are hints: they may be lost, doubled or late. What is added or taken away for one is put right by the next
//! answer.

use serde::Deserialize;

use super::{schedule::Hint, sse::Event, task_started::TaskStarted};

/// What was learnt from one event, or from the stream itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventSummary {
    /// How soon to look.
    pub(super) hint: Hint,
    /// The app that changed; `None` for all of them.
    pub(super) app: Option<String>,
    /// The task that has come to its end.
    pub(super) end: Option<End>,
    /// The task that has begun to run.
    pub(super) start: Option<TaskStarted>,
}

/// A task that has come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Its id.
    pub(super) task: String,
    /// Whether it still runs, and open connections with it.
    pub(super) still_running: bool,
}

impl EventSummary {
    /// Something that concerns everything.
    pub(super) fn of_all(hint: Hint) -> Self {
        Self { hint, app: None, end: None, start: None }
    }
}

/// What of an event's data is of use.
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

/// What an event says. One that cannot be read says that something has changed.
pub(super) fn note(event: &Event) -> EventSummary {
    let data: Data = serde_json::from_str(&event.data).unwrap_or_default();
    let app = data.app_id.or(data.run_spec_id);
    let changed = |app| EventSummary { hint: Hint::Changed, app, end: None, start: None };
    match event.name.as_str() {
        "status_update_event" => match data.task_status.as_deref().unwrap_or_default() {
            "TASK_RUNNING" => EventSummary { start: TaskStarted::of(&event.data), ..changed(app) },
            "TASK_KILLING" => ended(app, data.task_id, true),
            "TASK_KILLED"
            | "TASK_FINISHED"
            | "TASK_FAILED"
            | "TASK_ERROR"
            | "TASK_GONE"
            | "TASK_GONE_BY_OPERATOR"
            | "TASK_DROPPED" => ended(app, data.task_id, false),
            // Such a task may be back: whether it counts is for the listing to say.
            "TASK_LOST" | "TASK_UNKNOWN" => EventSummary { hint: Hint::Urgent, ..changed(app) },
            _ => changed(app),
        },
        "unhealthy_instance_kill_event" | "unhealthy_task_kill_event" => ended(app, data.task_id, true),
        // Their instances are not looked up: a new task may have the instance of one that has ended.
        "instance_changed_event" | "instance_health_changed_event" | "health_status_changed_event" => changed(app),
        "api_post_event" => changed(data.app_definition.and_then(|it| it.id)),
        // Deployments, groups, pods, the link to Mesos: whatever they concern, a listing shows it.
        _ => changed(None),
    }
}

fn ended(app: Option<String>, task: Option<String>, lingers: bool) -> EventSummary {
    let end = task.filter(|task| !task.is_empty()).map(|task| End { task, still_running: lingers });
    // Where the task has left already, looking is not urgent any more, and agents need not ask all at once.
    EventSummary { hint: if end.is_some() { Hint::Changed } else { Hint::Urgent }, app, end, start: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn say(name: &str, data: &str) -> EventSummary {
        note(&Event { name: name.into(), data: data.into() })
    }

    #[test]
    fn a_status_that_ends_a_task_names_it() {
        for (status, lingers) in
            [("KILLING", true), ("KILLED", false), ("FAILED", false), ("FINISHED", false), ("GONE_BY_OPERATOR", false)]
        {
            let said = say(
                "status_update_event",
                &format!(r#"{{"taskStatus":"TASK_{status}","taskId":"t","appId":"/a","host":null}}"#),
            );
            let end = Some(End { task: "t".into(), still_running: lingers });
            assert_eq!(
                said,
                EventSummary { hint: Hint::Changed, app: Some("/a".into()), end, start: None },
                "{status}"
            );
        }
        let kill = say("unhealthy_instance_kill_event", r#"{"taskId":"t","appId":"/a"}"#);
        assert_eq!(kill.end, Some(End { task: "t".into(), still_running: true }));
    }

    #[test]
    fn what_may_come_back_ends_nothing() {
        for status in ["TASK_RUNNING", "TASK_LOST", "TASK_UNREACHABLE", "TASK_UNKNOWN", "TASK_NEW_WORD"] {
            let said = say("status_update_event", &format!(r#"{{"taskStatus":"{status}","taskId":"t"}}"#));
            assert_eq!(said.end, None, "{status}");
        }
        assert_eq!(say("instance_changed_event", r#"{"condition":"Killed","instanceId":"i"}"#).end, None);
        assert_eq!(say("deployment_success", r#"{"taskStatus":"TASK_FAILED","taskId":"t"}"#).end, None);
    }

    #[test]
    fn events_of_one_app_name_it_and_others_concern_everything() {
        for (name, data, app) in [
            ("instance_changed_event", r#"{"runSpecId":"/a","condition":"Running"}"#, Some("/a")),
            ("health_status_changed_event", r#"{"appId":"/a","alive":true}"#, Some("/a")),
            ("api_post_event", r#"{"appDefinition":{"id":"/a","cmd":"x"}}"#, Some("/a")),
            ("api_post_event", r#"{"appDefinition":7}"#, None),
            ("app_terminated_event", r#"{"appId":"/a"}"#, None),
            ("group_change_success", r#"{"groupId":"/"}"#, None),
            ("status_update_event", "not JSON", None),
        ] {
            let said = say(name, data);
            assert_eq!((said.app.as_deref(), said.hint), (app, Hint::Changed), "{name} {data}");
        }
    }

    proptest! {
        #[test]
        fn any_data_says_something(name in "[a-z_]{0,30}", data in any::<String>()) {
            say(&name, &data);
            say("status_update_event", &data);
        }
    }
}
