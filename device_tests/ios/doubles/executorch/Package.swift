// swift-tools-version: 5.9
// A double of ExecuTorch's Swift package, for Linux: the same products and modules, and no library behind them.
import PackageDescription

let modules = ["CryptoKit", "UIKit"]  // Apple's, as far as the package under test uses them
let products = ["executorch", "executorch_llm", "backend_xnnpack", "kernels_llm", "kernels_optimized", "kernels_quantized"]

let package = Package(
  name: "executorch",
  products: products.map {
    .library(name: $0, targets: [$0 == "executorch_llm" ? "ExecuTorchLLM" : "ExecuTorch"] + modules)
  },
  targets: [
    .target(name: "ExecuTorch"),
    .target(name: "ExecuTorchLLM"),
  ] + modules.map { .target(name: $0) }
)
