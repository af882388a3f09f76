//! What comes over the file: environment variables, then flags.
//!
//! `COUNTERSIGN_OWN__ISSUER` sets `own.issuer`, `COUNTERSIGN_ISSUERS__0__LEEWAY` sets `issuers[0].leeway`. A value is
//! taken as it stands, but for one that begins with a quote or a bracket: that is YAML, such as `[a, b]`. Empty is
//! `null`. A variable with our prefix that sets nothing is a fault, but for those Kubernetes puts beside every pod for a
//! Service of our name.

use super::place::{Fault, Place};
use super::tree::{Member, Node, Origin, Value};
use super::yaml;
use std::cmp::Ordering;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;

const PREFIX: &str = "COUNTERSIGN_";

/// Settings from the environment and from flags, in the order in which they apply.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    variables: Vec<Entry>,
    flags: Vec<Entry>,
    faults: Vec<Fault>,
}

#[derive(Clone, Debug)]
struct Entry {
    origin: Origin,
    steps: Vec<String>,
    text: String,
}

impl Overlay {
    /// This process's environment. `others` are variables with our prefix that the command line reads itself.
    #[must_use]
    pub fn from_environment(others: &[&str]) -> Self {
        Self::from_variables(std::env::vars_os(), others)
    }

    /// The same from any variables.
    #[must_use]
    pub fn from_variables(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        others: &[&str],
    ) -> Self {
        let mut overlay = Self::default();
        for (name, text) in variables {
            let Some(name) = name.to_str() else { continue };
            let Some(setting) = name.strip_prefix(PREFIX) else { continue };
            if others.contains(&name) || is_kubernetes_service_link(name) {
                continue;
            }
            let name: Arc<str> = name.into();
            match text.into_string() {
                Ok(text) => overlay.variables.push(Entry {
                    steps: setting.split("__").map(str::to_ascii_lowercase).collect(),
                    origin: Origin::Variable(name),
                    text,
                }),
                Err(_) => overlay.faults.push(Fault::new(Place::Variable(name), "", "not valid UTF-8")),
            }
        }
        overlay.variables.sort_by(|a, b| by_steps(&a.steps, &b.steps));
        overlay
    }

    /// Adds what the flag `name` says about the setting at `path`, such as `issuers[0].leeway`. A later one wins.
    pub fn set(&mut self, name: &str, path: &str, value: &str) {
        let steps = path.replace('[', ".").replace(']', "").split('.').map(str::to_owned).collect();
        self.flags.push(Entry { origin: Origin::Flag(name.into()), steps, text: value.to_owned() });
    }

    /// Lays these settings over the tree; what can't be is a fault.
    pub(super) fn apply(&self, root: &mut Node) -> Vec<Fault> {
        let mut faults = self.faults.clone();
        for entry in self.variables.iter().chain(&self.flags) {
            let place = entry.origin.at(1, 0);
            match entry.read() {
                Ok((node, more)) => {
                    faults.extend(more);
                    if let Err(why) = put(root, &entry.steps, node, &place) {
                        faults.push(Fault::new(place, entry.steps.join("."), why));
                    }
                }
                Err(fault) => faults.push(Fault { path: entry.steps.join("."), ..fault }),
            }
        }
        faults
    }
}

impl Entry {
    fn read(&self) -> Result<(Node, Vec<Fault>), Fault> {
        let is_yaml =
            self.text.starts_with(['[', '{', '"', '\'']) && self.text.parse::<SocketAddr>().is_err();
        if is_yaml {
            return yaml::parse(&self.text, &self.origin);
        }
        let value = match self.text.as_str() {
            "" | "~" | "null" => Value::Null,
            text => Value::Scalar(text.to_owned()),
        };
        Ok((Node { place: self.origin.at(1, 0), value }, Vec::new()))
    }
}

/// Parents before what lies in them, and list items by number.
fn by_steps(a: &[String], b: &[String]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        let order = match (a.parse::<usize>(), b.parse::<usize>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => a.cmp(b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn put(at: &mut Node, steps: &[String], node: Node, place: &Place) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else {
        *at = node;
        return Ok(());
    };
    if step.is_empty() {
        return Err("a part of the name is empty".to_owned());
    }
    let index = step.parse::<usize>().ok();
    if matches!(at.value, Value::Null) {
        at.value = if index.is_some() { Value::List(Vec::new()) } else { Value::Map(Vec::new()) };
        at.place = place.clone();
    }
    let fresh = || Node { place: place.clone(), value: Value::Null };
    match (&mut at.value, index) {
        (Value::List(items), Some(index)) => {
            if index == items.len() {
                items.push(fresh());
            }
            let length = items.len();
            let item = items.get_mut(index);
            let item = item.ok_or_else(|| format!("there is no item {index}: the list has {length}"))?;
            put(item, rest, node, place)
        }
        (Value::List(_), None) => Err(format!("in a list, `{step}` is no index")),
        (Value::Map(members), _) => {
            if let Some(member) = members.iter_mut().find(|member| same_name(&member.key, step)) {
                return put(&mut member.node, rest, node, place);
            }
            let mut member = Member { key: step.clone(), place: place.clone(), node: fresh() };
            let done = put(&mut member.node, rest, node, place);
            members.push(member);
            done
        }
        (Value::Null | Value::Scalar(_), _) => Err(format!("`{step}` lies in a single value")),
    }
}

/// Names that operators choose may hold what variables' names can't: case, `-` and `.`.
fn same_name(key: &str, step: &str) -> bool {
    let folded = |c: char| if matches!(c, '-' | '.') { '_' } else { c.to_ascii_lowercase() };
    key == step || key.chars().map(folded).eq(step.chars().map(folded))
}

/// Whether Kubernetes made this variable for a Service whose name begins with ours: `…_SERVICE_HOST`,
/// `…_SERVICE_PORT[_NAME]`, `…_PORT`, `…_PORT_50051_TCP[_ADDR|_PORT|_PROTO]`.
fn is_kubernetes_service_link(name: &str) -> bool {
    if name.contains("__") {
        return false;
    }
    let parts: Vec<&str> = name.split('_').collect();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let ends_in_service = |at: usize| at > 0 && parts.get(at - 1) == Some(&"SERVICE");
    parts.iter().enumerate().skip(1).any(|(at, part)| match *part {
        "HOST" => ends_in_service(at) && at + 1 == parts.len(),
        "PORT" if ends_in_service(at) => true,
        "PORT" if at + 1 == parts.len() => true,
        "PORT" => {
            parts.get(at + 1).is_some_and(|next| is_number(next))
                && parts.get(at + 2).is_some_and(|next| matches!(*next, "TCP" | "UDP" | "SCTP"))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Overlay {
        Overlay::from_variables(
            pairs.iter().map(|(name, text)| (name.into(), text.into())),
            &["COUNTERSIGN_CONFIG"],
        )
    }

    fn names(overlay: &Overlay) -> Vec<String> {
        overlay.variables.iter().map(|entry| entry.steps.join(".")).collect()
    }

    #[test]
    fn variables_apply_from_the_outside_in_and_lists_in_order() {
        let overlay = variables(&[
            ("COUNTERSIGN_ISSUERS__10__LEEWAY", "1s"),
            ("COUNTERSIGN_ISSUERS__2__LEEWAY", "1s"),
            ("COUNTERSIGN_ISSUERS", "[]"),
            ("HOME", "/root"),
            ("COUNTERSIGN_CONFIG", "/etc/x"),
        ]);
        assert_eq!(names(&overlay), ["issuers", "issuers.2.leeway", "issuers.10.leeway"]);
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_of_our_name_is_left_alone() {
        let overlay = variables(&[
            ("COUNTERSIGN_SERVICE_HOST", "10.0.0.1"),
            ("COUNTERSIGN_SERVICE_PORT", "50051"),
            ("COUNTERSIGN_SERVICE_PORT_GRPC", "50051"),
            ("COUNTERSIGN_PORT", "tcp://10.0.0.1:50051"),
            ("COUNTERSIGN_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
            ("COUNTERSIGN_PORT_50051_TCP_ADDR", "10.0.0.1"),
            ("COUNTERSIGN_ORDERS_SERVICE_HOST", "10.0.0.2"),
            ("COUNTERSIGN_ORDERS_PORT_9090_TCP_PROTO", "tcp"),
            ("COUNTERSIGN_STORE", "sqlite:/x"),
            ("COUNTERSIGN_TRANSPORT", "x"),
        ]);
        assert_eq!(names(&overlay), ["store", "transport"]);
    }

    fn laid_over(text: &str, overlay: &Overlay) -> (String, Vec<String>) {
        let (mut root, _) = yaml::parse(text, &Origin::File("f.yaml".into())).unwrap();
        let faults = overlay.apply(&mut root).iter().map(ToString::to_string).collect();
        (format!("{:?}", super::super::tree::places(&root).keys().collect::<Vec<_>>()), faults)
    }

    #[test]
    fn a_list_grows_by_one_and_never_with_gaps() {
        let overlay = variables(&[("COUNTERSIGN_A__1", "x"), ("COUNTERSIGN_A__9", "x")]);
        let (paths, faults) = laid_over("a: [0]\n", &overlay);
        assert_eq!(paths, r#"["", "a", "a[0]", "a[1]"]"#);
        assert_eq!(faults, ["COUNTERSIGN_A__9: a.9: there is no item 9: the list has 2"]);
    }

    #[test]
    fn a_variable_finds_a_name_it_can_t_spell() {
        let overlay = variables(&[("COUNTERSIGN_POLICIES__BACK_OFFICE__IDLE", "1h")]);
        let (paths, faults) = laid_over("policies: {Back-Office: {idle: 2h}}\n", &overlay);
        assert_eq!(paths, r#"["", "policies", "policies.Back-Office", "policies.Back-Office.idle"]"#);
        assert!(faults.is_empty());
    }

    #[test]
    fn what_can_t_be_laid_over_names_its_variable() {
        let overlay =
            variables(&[("COUNTERSIGN_A__B", "1"), ("COUNTERSIGN_C", "[1"), ("COUNTERSIGN_D____E", "1")]);
        let (_, faults) = laid_over("a: 1\n", &overlay);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert_eq!(faults[0], "COUNTERSIGN_A__B: a.b: `b` lies in a single value");
        assert!(faults[1].starts_with("COUNTERSIGN_C: c: not valid YAML"), "{}", faults[1]);
        assert!(faults[2].ends_with("a part of the name is empty"), "{}", faults[2]);
    }

    #[test]
    fn a_value_is_taken_as_it_stands() {
        let entry =
            |text: &str| Entry { origin: Origin::Default, steps: vec![], text: text.to_owned() }.read();
        let value = |text: &str| entry(text).unwrap().0.value;
        for text in ["a: b # c", "*star", "@at", "[::1]:50051", "%x", "- dash"] {
            assert!(matches!(value(text), Value::Scalar(read) if read == text), "{text}");
        }
        assert!(matches!(value("'null'"), Value::Scalar(read) if read == "null"));
        assert!(matches!(value(""), Value::Null));
        assert!(matches!(value("[a, b]"), Value::List(items) if items.len() == 2));
        assert!(entry("[a, b").is_err());
    }

    #[test]
    fn a_variable_that_is_no_text_is_a_fault() {
        use std::os::unix::ffi::OsStringExt;
        let overlay =
            Overlay::from_variables([("COUNTERSIGN_STORE".into(), OsString::from_vec(vec![0xff]))], &[]);
        assert_eq!(laid_over("", &overlay).1, ["COUNTERSIGN_STORE: not valid UTF-8"]);
    }
}
