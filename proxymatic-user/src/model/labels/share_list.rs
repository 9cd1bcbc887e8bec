//! The value of the label `share`: the apps of other groups that may join the service of an app.

/// The apps that a label `share` names. The default names none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareList(Vec<Entry>);

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// The app or pod with this id.
    App(String),
    /// All apps and pods whose id begins with this path. The path ends with a slash.
    Below(String),
}

impl ShareList {
    /// Parses the entries, with commas between them. Returns one sentence for each invalid entry, which names no app.
    pub(super) fn parse(text: &str) -> (Self, Vec<String>) {
        let (mut entries, mut wrong) = (Vec::new(), Vec::new());
        for part in text.split(',').map(str::trim) {
            match parse(part) {
                Some(entry) => entries.push(entry),
                None => wrong.push(format!(
                    "{part:?} must be the id of an app such as /shop/web, or /shop/* for all apps below a group; the \
                     entry names no app"
                )),
            }
        }
        (Self(entries), wrong)
    }

    /// Returns whether the list names an app or pod.
    pub(crate) fn names(&self, id: &str) -> bool {
        self.0.iter().any(|entry| match entry {
            Entry::App(app) => app == id,
            Entry::Below(path) => id.starts_with(path.as_str()),
        })
    }
}

fn parse(part: &str) -> Option<Entry> {
    let path = part.strip_suffix('*').unwrap_or(part);
    let is_path = path.starts_with('/') && !path.contains(|c: char| c == '*' || c.is_whitespace());
    match (is_path, path.ends_with('/'), path.len() < part.len()) {
        (true, true, true) => Some(Entry::Below(path.to_owned())),
        (true, false, false) => Some(Entry::App(path.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_list_names_exact_ids_and_all_below_a_path() {
        let (list, wrong) = ShareList::parse("/a/web, /shop/*");
        assert_eq!(wrong, [""; 0]);
        for (id, named) in [
            ("/a/web", true),
            ("/a/web2", false),
            ("/a/web/x", false),
            ("/shop/web", true),
            ("/shop/deep/web", true),
            ("/shop", false),
            ("/shopping/web", false),
        ] {
            assert_eq!(list.names(id), named, "{id}");
        }
        assert!(ShareList::parse("/*").0.names("/any/app"));
        assert!(!ShareList::default().names("/any/app"));
    }

    #[test]
    fn invalid_share_entry_names_no_app() {
        for text in ["", "*", "web", "/", "/shop/", "/shop*", "/*/web", "/sh op/*", "shop/*", "/a/b*", "/shop/**"] {
            let (list, wrong) = ShareList::parse(text);
            assert_eq!((list, wrong.len()), (ShareList::default(), 1), "{text:?}");
        }
        let (list, wrong) = ShareList::parse("/a,b,/c");
        assert!(list.names("/a") && list.names("/c") && wrong.len() == 1);
    }
}
