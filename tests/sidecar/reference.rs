//! The README's reference of the configuration is the one the reader of configurations works by.

#[test]
fn the_readme_s_reference_is_what_check_prints() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, rest) = readme.split_once("<!-- reference -->").unwrap();
    let (reference, _) = rest.split_once("<!-- /reference -->").unwrap();
    let printed = countersign::config::markdown();
    assert!(
        reference.trim() == printed.trim(),
        "paste what `countersign check --reference` prints into the README"
    );
}
