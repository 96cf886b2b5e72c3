import EdgeModel
import Foundation

/// Measures a model as `edgesdk profile` does, and says it in lines of the runner protocol.
public final class Benchmark {
  private let plan: Plan
  private let folder: ModelFolder
  private let say: (String) -> Void
  private let sample: () -> Void
  private let clock: () -> Int

  /// - Parameters:
  ///   - say: takes one line at a time.
  ///   - sample: called between tokens' events; says `sample` events when it is time for them.
  ///   - clock: nanoseconds that go on while the app runs.
  public init(
    _ folder: ModelFolder, plan: Plan, clock: @escaping () -> Int = Benchmark.now, sample: @escaping () -> Void = {},
    say: @escaping (String) -> Void
  ) {
    self.folder = folder
    self.plan = plan
    self.clock = clock
    self.sample = sample
    self.say = say
  }

  public static func now() -> Int { Int(DispatchTime.now().uptimeNanoseconds) }

  /// Load, warm up, measure.
  ///
  /// - Throws: what ExecuTorch says; an `error` event is said before.
  public func run(facts: KeyValuePairs<String, RunnerLine.Value> = [:]) throws {
    do {
      try folder.verify()
      let started = clock()
      let session = try TokenSession(folder)
      let loading = clock() - started
      hello(session, facts)
      event("load", ["ticks": .int(loading), "ticks_per_second": .int(1_000_000_000)])
      try measure(session)
      event("end")
    } catch {
      event("error", ["code": .text("bundle"), "message": .text("\(error.localizedDescription)")])
      throw error
    }
  }

  private func hello(_ session: TokenSession, _ facts: KeyValuePairs<String, RunnerLine.Value>) {
    let versions = folder.manifest.program.runtimeVersions
    event(
      "hello",
      [
        "runner": .text("swift"), "protocol": .int(1), "runtime": .text("executorch"),
        "runtime_versions": .text(versions), "digest": .text(folder.manifest.digest), "vocab": .int(session.vocab),
        "context": .int(session.context), "ticks_per_second": .int(1_000_000_000), "clock": .text("uptime"),
        "model": .text(folder.manifest.model.name),
      ])
    say(RunnerLine.event("device", facts))
  }

  private func measure(_ session: TokenSession) throws {
    let lengths = plan.promptTokens.filter { $0 + plan.newTokens <= session.context }
    for length in plan.promptTokens where !lengths.contains(length) {
      event("left_out", ["prompt_tokens": .int(length), "context": .int(session.context)])
    }
    for index in -plan.warmup..<plan.repeats {
      for length in lengths { try once(session, length, index: index, part: index < 0 ? "warmup" : "measured") }
    }
    guard plan.sustained > 0, let length = lengths.first else { return }
    let end = clock() + Int(plan.sustained * 1e9)
    var index = 0
    while clock() < end {
      try once(session, length, index: index, part: "sustained")
      index += 1
    }
  }

  private func once(_ session: TokenSession, _ length: Int, index: Int, part: String) throws {
    var random = RandomTokens(seed: plan.seed &+ UInt64(length))
    let ids = random.prompt(length, vocab: session.vocab)
    event("repeat", ["part": .text(part), "index": .int(index), "prompt_tokens": .int(length), "at": .int(clock())])
    session.reset()
    var started = clock()
    var logits = try session.prefill(ids)
    var now = clock()
    event("prefill", ["tokens": .int(length), "ticks": .int(now - started), "at": .int(now)])
    for produced in 1...plan.newTokens {
      started = clock()
      let id = best(logits)
      let sampled = clock()
      if produced < plan.newTokens { logits = try session.decode(id) }
      now = clock()
      event(
        "token",
        [
          "id": .int(id), "sample_ticks": .int(sampled - started), "ticks": .int(now - sampled), "at": .int(now),
        ])
      sample()
    }
    event("done", ["prompt_tokens": .int(length), "new_tokens": .int(plan.newTokens), "stop": .text("length")])
  }

  private func best(_ logits: [Float]) -> Int {
    var best = 0
    for index in logits.indices where logits[index] > logits[best] { best = index }
    return best
  }

  private func event(_ name: String, _ fields: KeyValuePairs<String, RunnerLine.Value> = [:]) {
    say(RunnerLine.event(name, fields))
  }
}
