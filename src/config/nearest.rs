//! What might have been meant: the known word nearest to a mistyped one.

/// The candidate nearest to `word` by edit distance (insertions, deletions, replacements and swaps of neighbours),
/// case and `-`/`_` aside; `None` when even the nearest differs in more than about a third of its letters.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = folded(word);
    if word.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &folded(candidate)), candidate))
        .filter(|(apart, candidate)| *apart <= bearable(word.len().max(candidate.chars().count())))
        .min_by_key(|(apart, _)| *apart)
        .map(|(_, candidate)| candidate)
}

fn bearable(letters: usize) -> usize {
    letters.div_ceil(3).min(4)
}

fn folded(word: &str) -> Vec<char> {
    word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Optimal string alignment distance, two rows back.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut previous_a = None;
    for (i, &from) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        let mut previous_b = None;
        for (j, &to) in b.iter().enumerate() {
            let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let replaced = cell(&above, j) + usize::from(from != to);
            let mut least = replaced.min(cell(&above, j + 1) + 1).min(cell(&row, j) + 1);
            if previous_a == Some(to) && previous_b == Some(from) {
                least = least.min(cell(&before, j.saturating_sub(1)) + 1);
            }
            row.push(least);
            previous_b = Some(to);
        }
        before = std::mem::replace(&mut above, row);
        previous_a = Some(from);
    }
    above.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 6] = ["issuer", "keys", "leeway", "audiences", "algorithms", "staleness_bound"];

    #[test]
    fn finds_what_was_meant() {
        for (typed, meant) in [
            ("leway", "leeway"),
            ("lee_way", "leeway"),
            ("Leeway", "leeway"),
            ("audience", "audiences"),
            ("key", "keys"),
            ("staleness-bound", "staleness_bound"),
            ("isseur", "issuer"),
        ] {
            assert_eq!(nearest(typed, KEYS), Some(meant), "{typed}");
        }
    }

    #[test]
    fn suggests_nothing_far_fetched() {
        for typed in ["", "x", "password", "zzzzzzzz", &"a".repeat(100_000)] {
            assert_eq!(nearest(typed, KEYS), None);
        }
    }

    #[test]
    fn counts_edits() {
        let apart = |a: &str, b: &str| distance(&folded(a), &folded(b));
        assert_eq!(apart("", ""), 0);
        assert_eq!(apart("abc", ""), 3);
        assert_eq!(apart("", "abc"), 3);
        assert_eq!(apart("kitten", "sitting"), 3);
        assert_eq!(apart("ab", "ba"), 1);
        assert_eq!(apart("leeway", "leeway"), 0);
    }
}
