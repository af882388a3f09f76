//! From a failing schedule to one of the shortest that fails in the same way.

use crate::breakage::Breakage;
use crate::checker::{Violation, check};
use crate::history::History;
use crate::schedule::Schedule;
use crate::world::play;

/// Replays at most this often.
const MOST: usize = 600;

/// Leaves events out, in ever smaller portions, as long as the same rule stays broken.
pub(crate) fn shrink(schedule: &Schedule, breakage: Breakage, rule: &str) -> Schedule {
    let fails = |schedule: &Schedule| check(&play(schedule, breakage)).iter().any(|one| one.rule == rule);
    let mut shortest = schedule.clone();
    let mut portion = shortest.events.len().div_ceil(2);
    let mut replays = 0;
    while portion > 0 {
        let mut from = 0;
        let mut shrunk = false;
        while from < shortest.events.len() && replays < MOST {
            let mut shorter = shortest.clone();
            let to = (from + portion).min(shorter.events.len());
            shorter.events.drain(from..to);
            replays += 1;
            if fails(&shorter) {
                shortest = shorter;
                shrunk = true;
            } else {
                from = to;
            }
        }
        if portion > 1 {
            portion /= 2;
        } else if !shrunk || replays >= MOST {
            break;
        }
    }
    shortest
}

/// The seed, what is broken, and the shortest history of it.
pub(crate) fn told(schedule: &Schedule, breakage: Breakage, violation: &Violation) -> String {
    let shortest = shrink(schedule, breakage, violation.rule);
    let history: History = play(&shortest, breakage);
    let violations = check(&history);
    let again = violations.iter().find(|one| one.rule == violation.rule).unwrap_or(violation);
    format!(
        "seed {} breaks: {}\n{}\nshortest: {} events of {}, {} sidecars\n{}\nrepeat with SIMULATION_SEED={}",
        schedule.seed,
        again.rule,
        again.told,
        shortest.events.len(),
        schedule.events.len(),
        schedule.sidecars,
        history.told(again.session),
        schedule.seed,
    )
}
