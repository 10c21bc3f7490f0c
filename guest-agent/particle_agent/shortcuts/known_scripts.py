"""The SHA-256 of each script of Debian 12 and later that the stand-ins know.

`make debian-facts` writes this file.
"""

DATE = "2026-11-28"
SCRIPTS: dict[str, tuple[str, ...]] = {
    "linux": (
        "6949d3bf08ea29a61bd76b55ce61e8cbcbefa14596e5ff237e744c8943667373",
        "e0ea01d6acb89855b979cff6d0c433516657fdbed4ffa382d3e2f556bbf4e6f0",
    ),
    "locales": (
        "1c681aec0a7dd580faf35d36ff99f9f425552bda594ef00a535929de3b22c442",
        "509ed5d8a0f0034a2fc12a22b77bece2b47971766df4dc580fe360bd5280a396",
        "52522cd104267288974efaf3501512b3fd51449273324099d6d7efd54a9dd917",
    ),
    "udev": (
        "24423ed6fd11a8df1eb8fc6a7fc2fca63b527dc62edadb3a81a81d62f742913c",
        "71122c9954d4f66ad27ecbd9f69595b90d10258cbfd702652891b5b3601fb0e5",
        "a5d6ce477b89eb9a79a3c1230b24bf6723c66a9820ec4b2d174a12660ee29efd",
    ),
    "update-initramfs": (
        "12f355680d6e12835e3c9761d24477e7d85ce5ac364e1050b32f6e8825553d17",
        "77957a324a936d6ee5d1cd51043cac9f34af7daaed5971bf1a0f6982b1c4eb30",
        "9fee81418917854dd5de2420e7b40d80ad7ad89011a3d9ad8413b5588f46f8a9",
    ),
}
