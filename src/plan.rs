//! Draws a spec's graph: as text, for Graphviz, as JSON, as a picture.

use std::collections::BTreeMap;

use graph::NodeName;
use serde::Serialize;

use crate::spec::Spec;

/// Renders the plan as text: nodes in the order they could run, and what each takes.
pub fn text(spec: &Spec) -> String {
    let has_iso = spec.dag.nodes().values().any(|node| crate::steps::ISOS.contains(&node.step.kind()));
    let mut text = spec.name.clone();
    if has_iso {
        text.push_str(&format!(" → {}", spec.image.iso_name()));
    }
    text.push_str("\n\n");
    for (node, remark) in &spec.remarks {
        text.push_str(&format!("note: {node}: {remark}\n\n"));
    }
    if let Some(refused) = &spec.refused {
        text.push_str(&format!("note: {refused}\n\n"));
    }
    for node in spec.dag.order() {
        let derivation = &spec.dag.nodes()[&node];
        let outputs = derivation.outputs().join(", ");
        text.push_str(&format!("{node} ({}) gives {outputs}\n", derivation.step.kind()));
        for (name, from) in derivation.inputs() {
            text.push_str(&format!("    takes {name} from {from}\n"));
        }
    }
    text.push('\n');
    for (folder, output) in &spec.publish {
        let folder = folder.as_ref().map_or_else(|| ".".to_owned(), ToString::to_string);
        text.push_str(&format!("publishes {output} in {folder}\n"));
    }
    text
}

/// Renders the plan for Graphviz.
pub fn dot(spec: &Spec) -> String {
    let mut text = String::from("digraph plan {\n  rankdir = LR;\n  node [shape = box];\n");
    for (node, derivation) in spec.dag.nodes() {
        text.push_str(&format!("  \"{node}\" [label = \"{node}\\n{}\"];\n", derivation.step.kind()));
        for (name, from) in derivation.inputs() {
            text.push_str(&format!("  \"{}\" -> \"{node}\" [label = \"{name}\"];\n", from.node));
        }
    }
    text.push_str("}\n");
    text
}

#[derive(Serialize)]
struct PlanDocument<'a> {
    spec: &'a str,
    image: BTreeMap<&'static str, Option<String>>,
    remarks: Vec<String>,
    nodes: Vec<PlanNode>,
    publish: Vec<PlanPublish>,
}

#[derive(Serialize)]
struct PlanNode {
    node: String,
    step: &'static str,
    version: u32,
    params: BTreeMap<String, String>,
    inputs: BTreeMap<String, String>,
    outputs: Vec<String>,
}

#[derive(Serialize)]
struct PlanPublish {
    folder: String,
    output: String,
}

/// Renders the plan as JSON; `docs/plan.md` describes the members.
pub fn json(spec: &Spec) -> String {
    let image = BTreeMap::from([
        ("name", Some(spec.image.name.clone())),
        ("title", spec.image.title.clone()),
        ("volume_id", spec.image.volume_id.clone()),
        ("timestamp", Some(spec.image.timestamp.text())),
    ]);
    let nodes = spec.dag.order().into_iter().map(|node| {
        let derivation = &spec.dag.nodes()[&node];
        PlanNode {
            node: node.to_string(),
            step: derivation.step.kind(),
            version: derivation.step.version(),
            params: derivation.step.params(),
            inputs: derivation.inputs().map(|(name, from)| (name.clone(), from.to_string())).collect(),
            outputs: derivation.outputs().to_vec(),
        }
    });
    let publish = spec.publish.iter().map(|(folder, output)| PlanPublish {
        folder: folder.as_ref().map_or_else(|| ".".to_owned(), ToString::to_string),
        output: output.to_string(),
    });
    let document = PlanDocument {
        spec: &spec.name,
        image,
        remarks: spec.remarks.iter().map(|(node, text)| format!("{node}: {text}")).collect(),
        nodes: nodes.collect(),
        publish: publish.collect(),
    };
    let mut text = serde_json::to_string_pretty(&document).expect("names and texts are JSON");
    text.push('\n');
    text
}

/// The picture's measures, in pixels.
const WIDTH: usize = 148;
const HEIGHT: usize = 46;
const GAP_X: usize = 72;
const GAP_Y: usize = 26;
const MARGIN: usize = 28;
const HEAD: usize = 44;

/// Where nodes stand: column by the longest way from a source, row within the column.
struct Layout {
    places: BTreeMap<NodeName, (usize, usize)>,
    width: usize,
    height: usize,
}

fn layout(spec: &Spec) -> Layout {
    let order = spec.dag.order();
    let mut columns: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for node in &order {
        let givers = spec.dag.nodes()[node].inputs().map(|(_, from)| &from.node);
        let column = givers.filter_map(|giver| columns.get(giver)).max().map_or(0, |column| column + 1);
        columns.insert(node, column);
    }
    // A source stands right before the first that needs it, so that its line is short.
    for node in &order {
        if spec.dag.givers(node) == 0 {
            let first = spec.dag.takers(node).filter_map(|taker| columns.get(taker)).min().copied();
            columns.insert(node, first.unwrap_or(1).saturating_sub(1));
        }
    }
    let count = columns.values().max().map_or(0, |last| last + 1);
    let mut rows: Vec<Vec<&NodeName>> = vec![Vec::new(); count];
    for node in &order {
        rows[columns[node]].push(node);
    }
    let tallest = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut heights: BTreeMap<&NodeName, f64> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (column, nodes) in rows.iter_mut().enumerate() {
        // Near the middle of what it takes, so that lines cross little.
        let middle = |node: &NodeName| {
            let givers: Vec<f64> = spec.dag.nodes()[node]
                .inputs()
                .filter_map(|(_, from)| heights.get(&from.node).copied())
                .collect();
            if givers.is_empty() { tallest as f64 } else { givers.iter().sum::<f64>() / givers.len() as f64 }
        };
        let keys: BTreeMap<&NodeName, f64> = nodes.iter().map(|node| (*node, middle(node))).collect();
        nodes.sort_by(|a, b| keys[a].total_cmp(&keys[b]).then(a.cmp(b)));
        let top = (tallest - nodes.len()) as f64 / 2.0;
        for (row, node) in nodes.iter().enumerate() {
            let row = top + row as f64;
            heights.insert(node, row);
            let y = HEAD + MARGIN + (row * (HEIGHT + GAP_Y) as f64) as usize;
            places.insert((*node).clone(), (MARGIN + column * (WIDTH + GAP_X), y));
        }
    }
    Layout {
        places,
        width: 2 * MARGIN + count * WIDTH + count.saturating_sub(1) * GAP_X,
        height: HEAD + 2 * MARGIN + tallest * HEIGHT + tallest.saturating_sub(1) * GAP_Y,
    }
}

/// The colours of a node: of its inside and of its edge.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    /// Of its inside.
    pub fill: &'static str,
    /// Of its edge.
    pub stroke: &'static str,
}

/// Renders the plan as a picture. `paint` says what colours a node has; else they tell what is published from what is not.
pub fn svg(spec: &Spec, paint: &dyn Fn(&NodeName) -> Option<Paint>) -> String {
    let Layout { places, width, height } = layout(spec);
    let published = spec.published();
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"34\" font-size=\"18\" font-weight=\"bold\" fill=\"#1c2430\">{}</text>\n",
        spec.name
    );
    for (node, derivation) in spec.dag.nodes() {
        let (to_x, to_y) = places[node];
        let givers: std::collections::BTreeSet<_> = derivation.inputs().map(|(_, from)| &from.node).collect();
        for giver in givers {
            let (from_x, from_y) = places[giver];
            let (x1, y1, x2, y2) = (from_x + WIDTH, from_y + HEIGHT / 2, to_x, to_y + HEIGHT / 2);
            // The bend lies in the last gap: a long line runs level beside the nodes it passes.
            let bend = x2 - GAP_X / 2;
            text.push_str(&format!(
                "<path d=\"M{x1} {y1} C{bend} {y1} {bend} {y2} {x2} {y2}\" fill=\"none\" stroke=\"#8a97a8\" \
                 stroke-width=\"1.4\"/>\n"
            ));
        }
    }
    for (node, (x, y)) in &places {
        let usual = match published.contains(node) {
            true => Paint { fill: "#e3f4e8", stroke: "#2f8f4e" },
            false => Paint { fill: "#eaf0fa", stroke: "#3f67b0" },
        };
        let Paint { fill, stroke } = paint(node).unwrap_or(usual);
        let middle = x + WIDTH / 2;
        text.push_str(&format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"7\" fill=\"{fill}\" stroke=\"{stroke}\" \
             stroke-width=\"1.5\"/>\n\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" font-size=\"14\" font-weight=\"bold\" \
             fill=\"#1c2430\">{node}</text>\n\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" font-size=\"11\" fill=\"#5a6778\">{}</text>\n",
            y + 20,
            y + 36,
            spec.dag.nodes()[node].step.kind()
        ));
    }
    text.push_str("</svg>\n");
    text
}
