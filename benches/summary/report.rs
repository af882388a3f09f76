//! What was measured, as lines while it runs and as one file at the end.

use serde_json::{Map, Value, json};
use std::path::Path;

#[derive(Default)]
pub struct Report(Map<String, Value>);

impl Report {
    pub fn value(&mut self, name: &str, value: f64, unit: &str, samples: usize, against: &str) {
        self.add(name, value, unit, None, samples, against);
    }

    pub fn with_p99(&mut self, name: &str, value: f64, unit: &str, p99: f64, samples: usize, against: &str) {
        self.add(name, value, unit, Some(p99), samples, against);
    }

    fn add(&mut self, name: &str, value: f64, unit: &str, p99: Option<f64>, samples: usize, against: &str) {
        let rounded = |value: f64| (value * 1e3).round() / 1e3;
        let mut entry =
            json!({"value": rounded(value), "unit": unit, "samples": samples, "against": against});
        if let Some(p99) = p99 {
            entry["p99"] = json!(rounded(p99));
        }
        println!("{name:<36} {:>12} {unit:<8} {against}", rounded(value));
        self.0.insert(name.to_owned(), entry);
    }

    pub fn write(&self) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("summary.json");
        std::fs::write(&file, serde_json::to_string_pretty(&self.0).unwrap() + "\n").unwrap();
        println!("written to target/bench/summary.json");
    }
}
