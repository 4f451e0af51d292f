import java.io.FileInputStream;
import java.net.HttpURLConnection;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * A client in Java: Get LIBRARY get URL... | Get LIBRARY put FILE URL
 *
 * <p>The proxy is in the properties http.proxyHost and so on, or socksProxyHost. CA is the file of
 * the authority.
 */
public final class Get {
    public static void main(String[] args) throws Exception {
        boolean put = args[1].equals("put");
        Path file = put ? Path.of(args[2]) : null;
        SSLContext tls = context();
        HttpClient client =
                HttpClient.newBuilder().proxy(ProxySelector.getDefault()).version(HttpClient.Version.HTTP_1_1).sslContext(tls).build();
        HttpsURLConnection.setDefaultSSLSocketFactory(tls.getSocketFactory());
        for (int i = put ? 3 : 2; i < args.length; i++) {
            URI uri = URI.create(args[i]);
            if (args[0].equals("HttpClient")) {
                withClient(client, uri, file);
            } else {
                withConnection(uri, file);
            }
        }
        System.out.flush();
    }

    private static void withClient(HttpClient client, URI uri, Path file) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(uri);
        if (file != null) {
            request.PUT(HttpRequest.BodyPublishers.ofFile(file));
        }
        HttpResponse<byte[]> response = client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray());
        if (response.statusCode() >= 300) {
            throw new java.io.IOException("status " + response.statusCode());
        }
        System.out.write(response.body());
    }

    private static void withConnection(URI uri, Path file) throws Exception {
        HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
        if (file != null) {
            connection.setRequestMethod("PUT");
            connection.setDoOutput(true);
            connection.setFixedLengthStreamingMode(java.nio.file.Files.size(file));
            try (var out = connection.getOutputStream()) {
                java.nio.file.Files.copy(file, out);
            }
        }
        try (var in = connection.getInputStream()) {
            in.transferTo(System.out);
        }
    }

    private static SSLContext context() throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (var in = new FileInputStream(System.getenv("CA"))) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
