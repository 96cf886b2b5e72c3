import EdgeBenchmark
import EdgeModel
import UIKit
import XCTest

/// Measures the model on this phone; the lines go to `Documents/edgesdk-benchmark.jsonl` and to the log.
///
/// `EDGESDK_PLAN` in the test's environment holds a plan as JSON. Run it from a Release build.
@MainActor
final class BenchmarkTests: XCTestCase {
  func testBenchmark() async throws {
    let folder = try await ModelSource().folder()
    var plan = Plan()
    if let text = ProcessInfo.processInfo.environment["EDGESDK_PLAN"], !text.isEmpty {
      plan = try JSONDecoder().decode(Plan.self, from: Data(text.utf8))
    }
    let url = URL.documentsDirectory.appending(path: "edgesdk-benchmark.jsonl")
    FileManager.default.createFile(atPath: url.path, contents: nil)
    let file = try FileHandle(forWritingTo: url)
    defer { try? file.close() }
    let say = { (line: String) in
      file.write(Data((line + "\n").utf8))
      print(line)
    }
    UIApplication.shared.isIdleTimerDisabled = true
    try Benchmark(folder, plan: plan, phone: .here(), say: say).run()
  }
}
