#!/bin/sh
# Make Model.aar, the asset pack that App Store Connect takes. Needs Xcode 26 on a Mac.
set -eu
cd "$(dirname "$0")/.."
xcrun ba-package AssetPack/Manifest.json -o Model.aar
echo "Model.aar: upload it with Transporter, or try it with: xcrun ba-serve Model.aar"
