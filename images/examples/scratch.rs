//! scratch
use koboshi_images::*;
use std::path::Path;
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let store = Store::open(&args[0]).unwrap();
    let begun = std::time::Instant::now();
    let mut last = String::new();
    let mut progress = |p: Progress| {
        let kind = match &p {
            Progress::Step(s) => s.clone(),
            Progress::Packing { .. } => "packing".into(),
            Progress::Reading { .. } => "reading".into(),
            Progress::Unpacking { .. } => "unpacking".into(),
            Progress::Modules { .. } => "modules".into(),
        };
        if kind != last {
            eprintln!("{:7.2} {kind}", begun.elapsed().as_secs_f64());
            last = kind;
        }
    };
    let done = match args[1].as_str() {
        "build" => {
            let mut options = BuildOptions::new("/tmp/kcache");
            for arg in &args[3..] {
                if arg == "slim" {
                    options.slim = true
                } else if let Some(l) = arg.strip_prefix("level=") {
                    options.import.level = l.parse().unwrap()
                } else if let Some(n) = arg.strip_prefix("name=") {
                    options.name = Some(n.into())
                } else {
                    options.kernel = Some(Kernel::from(arg.clone()))
                }
            }
            build(&store, &args[2], &options, &mut progress)
        }
        _ => {
            import(&store, &args[2], Path::new(&args[3]), &ImportOptions::default(), &mut progress)
        }
    };
    match done {
        Ok(done) => {
            println!("{:.2}s new={} {:#?}", begun.elapsed().as_secs_f64(), done.new, done.version);
            for w in done.warnings {
                println!("warning: {w}");
            }
        }
        Err(error) => println!("error: {error}"),
    }
}
