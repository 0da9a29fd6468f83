//! The attack table of the guarantees, A1 to A26, against the built binary: each attack gets the right refusal in words
//! that help an honest caller, none a 5xx, the server lives, serves the next one, and its memory stays bounded.
//!
//! | id | attack | test |
//! |---|---|---|
//! | A1 | no key, or none that is one | `keys::a1_…`; in process, at every route, `access::without_a_key_nothing_is_told_…` of the services |
//! | A2 | bodies that are too large, too deep, no text | `bodies::a2_…`, `bad_input::bodies` |
//! | A3 | a body that poses as another | `bodies::a3_…` |
//! | A4 | texts that other parsers choke on, stored and loaded | `stored::a4_…` |
//! | A5 | hostile YAML | `files::a5_…` |
//! | A6 | names that lead out of the folder | `files::a6_…`; `config::put` and `config::discover` of the services |
//! | A7 | templates and variables in prompts | `stored::a7_…` |
//! | A8, A9 | addresses of private places, redirects | `egress` of the tools |
//! | A10 | the address of a model, from a caller | `keys::a10_…`; which key goes where: `endpoint` of `llm` |
//! | A11 | forged Slack requests | with Slack |
//! | A12 | strange hosts, origins, sessions, versions | `keys::a12_…` at every service, `mcp::a12_…` at the MCP server |
//! | A13 | tokens for another audience | `mcp::a13_…` |
//! | A14 | a model that obeys what a tool result says | `agents::a14_…` |
//! | A15 | tool servers that change, collide, flood | `tools::a15_…`; `bad_input::mcp`; `surface::two_tools_of_one_name_…` and `api::a_huge_answer_is_cut` of the tools; terminal codes: `logs::a25_…` |
//! | A16 | agents that ask one another | `agents::a16_…` |
//! | A17 | a model that never stops | `agents::a17_…`; `bad_input::models`: one that loops for ever, an answer that never ends |
//! | A18 | programs named through the API | `files::a18_…`; `config::commands` of the services |
//! | A19 | the ids of others | `access::every_scope_at_every_route_…` of the services |
//! | A20 | planted secrets | `bad_input::secrets` |
//! | A21 | requests that are no requests | `connections::a21_…` |
//! | A22 | watchers that never read | `connections::a22_…`; how many there may be: `edge::what_is_under_way_is_bounded` of the services |
//! | A23 | damaged backups | `restoring::hostile::a23_…`; what a file with a right seal may try: `backup::tests` |
//! | A24 | a changed audit log | `limits_audit::a_changed_or_missing_line_is_named_…` |
//! | A25 | line breaks and terminal codes | `logs::a25_…` |
//! | A26 | providers that answer wrongly | `bad_input::models`, on the wire of all four |

mod agents;
mod bodies;
mod connections;
mod files;
mod keys;
mod logs;
mod mcp;
mod rig;
mod stored;
mod tools;
