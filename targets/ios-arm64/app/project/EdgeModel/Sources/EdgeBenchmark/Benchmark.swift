import EdgeModel
import Foundation

/// What the phone says of itself; fields of events, null where it does not say.
public struct Phone {
  /// Heat, battery and states, now.
  public let sensors: () -> RunnerLine.Fields
  /// Memory of this process, now, in bytes.
  public let memory: () -> RunnerLine.Fields
  /// Maker, model and release.
  public let facts: RunnerLine.Fields

  public init(
    facts: RunnerLine.Fields = [], sensors: @escaping () -> RunnerLine.Fields = { [] },
    memory: @escaping () -> RunnerLine.Fields = { [] }
  ) {
    self.facts = facts
    self.sensors = sensors
    self.memory = memory
  }
}

/// Measures a model as `edgesdk profile` does, and says it in lines of the runner protocol.
public final class Benchmark {
  private let plan: Plan
  private let folder: ModelFolder
  private let phone: Phone
  private let say: (String) -> Void
  private let clock: () -> Int

  /// - Parameters:
  ///   - say: takes one line at a time.
  ///   - clock: nanoseconds that go on while the app runs.
  public init(
    _ folder: ModelFolder, plan: Plan, phone: Phone = Phone(), clock: @escaping () -> Int = Benchmark.now,
    say: @escaping (String) -> Void
  ) {
    self.folder = folder
    self.plan = plan
    self.phone = phone
    self.clock = clock
    self.say = say
  }

  public static func now() -> Int { Int(DispatchTime.now().uptimeNanoseconds) }

  /// Load, warm up, measure.
  ///
  /// - Throws: what ExecuTorch says; an `error` event is said before.
  public func run() throws {
    do {
      try folder.verify()
      let started = clock()
      let session = try TokenSession(folder)
      let loading = clock() - started
      hello(session)
      event("load", [("ticks", .int(loading)), ("ticks_per_second", .int(1_000_000_000))])
      look("after_load")
      try measure(session)
      event("end", [("at", .int(clock()))])
    } catch {
      event("error", [("code", .text("bundle")), ("message", .text(error.localizedDescription))])
      throw error
    }
  }

  private func hello(_ session: TokenSession) {
    let said: RunnerLine.Fields = [
      ("runner", .text("ios app")), ("protocol", .int(1)), ("runtime", .text("executorch")),
      ("digest", .text(folder.manifest.digest)), ("vocab", .int(session.vocab)), ("context", .int(session.context)),
      ("ticks_per_second", .int(1_000_000_000)), ("clock", .text("mach_absolute_time")),
    ]
    event("hello", said + phone.facts)
  }

  private func measure(_ session: TokenSession) throws {
    let lengths = plan.promptTokens.filter { $0 + plan.newTokens <= session.context }
    for length in plan.promptTokens where !lengths.contains(length) {
      event("left_out", [("prompt_tokens", .int(length)), ("context", .int(session.context))])
    }
    for length in lengths {
      for index in 0..<plan.warmup { try once(session, length, "warmup", index) }
      for index in 0..<plan.repeats { try once(session, length, "repeat", index) }
    }
    look("after_run")
    guard plan.sustained > 0, let length = lengths.first else { return }
    let end = clock() + Int(plan.sustained * 1e9)
    var index = 0
    while clock() < end {
      try once(session, length, "sustained", index)
      index += 1
    }
  }

  private func once(_ session: TokenSession, _ length: Int, _ kind: String, _ index: Int) throws {
    var random = RandomTokens(seed: plan.seed &+ UInt64(length))
    let ids = random.prompt(length, vocab: session.vocab)
    session.reset()
    sense()
    event("run", [("kind", .text(kind)), ("index", .int(index)), ("at", .int(clock()))])
    var started = clock()
    var logits = try session.prefill(ids)
    var now = clock()
    event("prefill", [("tokens", .int(length)), ("ticks", .int(now - started)), ("at", .int(now))])
    for produced in 1...plan.newTokens {
      started = clock()
      let id = best(logits)
      let chosen = clock()
      if produced < plan.newTokens { logits = try session.decode(id) }
      now = clock()
      event(
        "token",
        [("id", .int(id)), ("sample_ticks", .int(chosen - started)), ("ticks", .int(now - chosen)), ("at", .int(now))])
    }
    event("done", [("prompt_tokens", .int(length)), ("new_tokens", .int(plan.newTokens)), ("stop", .text("length"))])
    sense()
  }

  private func best(_ logits: [Float]) -> Int {
    var best = 0
    for index in logits.indices where logits[index] > logits[best] { best = index }
    return best
  }

  private func sense() { event("sensors", [("at", .int(clock()))] + phone.sensors()) }

  private func look(_ moment: String) {
    event("memory", [("moment", .text(moment)), ("at", .int(clock()))] + phone.memory())
  }

  private func event(_ name: String, _ fields: RunnerLine.Fields = []) {
    say(RunnerLine.event(name, fields))
  }
}
