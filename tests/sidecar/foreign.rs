//! Other issuers' tokens.
