module countersign.example.com/tests/helm

go 1.26
