<?php
// A client in PHP: get.php get URL... | get.php put FILE URL
//
// The extension curl takes the proxy from the usual variables. CA is the file of the authority.
$action = $argv[1];
$rest = array_slice($argv, 2);
$file = $action === "put" ? array_shift($rest) : null;
$curl = curl_init();
foreach ($rest as $url) {
    curl_setopt_array($curl, [
        CURLOPT_URL => $url,
        CURLOPT_CAINFO => getenv("CA"),
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_FAILONERROR => true,
    ]);
    if (str_starts_with(getenv("PROXY"), "socks")) {
        curl_setopt($curl, CURLOPT_PROXY, getenv("PROXY"));
    }
    if ($file !== null) {
        curl_setopt($curl, CURLOPT_CUSTOMREQUEST, "PUT");
        curl_setopt($curl, CURLOPT_POSTFIELDS, file_get_contents($file));
    }
    $body = curl_exec($curl);
    if ($body === false) {
        fwrite(STDERR, curl_error($curl) . "\n");
        exit(1);
    }
    echo $body;
}
