package store

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"

	"github.com/mailhaul/pipeline/pkg/objects"
)

// bucketName returns the name of the bucket of an address.
func bucketName(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	name, _, _ := strings.Cut(rest, "?")
	return name
}

// uploads lists the uploads in parts that were begun and neither ended nor
// given up. Google's end by themselves, Azure's and a folder's have no name:
// only S3 has any to show.
func uploads(b *blob.Bucket, w http.ResponseWriter, r *http.Request) error {
	page := objects.Page{Objects: []objects.Listed{}}
	var client *s3.Client
	if b.As(&client) {
		q := r.URL.Query()
		in := &s3.ListMultipartUploadsInput{
			Bucket: aws.String(bucketName(r.Header.Get(objects.HeaderBucket))), Prefix: aws.String(q.Get("prefix")), MaxUploads: aws.Int32(perPage),
		}
		if key, id, ok := strings.Cut(q.Get("token"), "\x00"); ok {
			in.KeyMarker, in.UploadIdMarker = aws.String(key), aws.String(id)
		}
		out, err := client.ListMultipartUploads(r.Context(), in)
		if err != nil {
			return err
		}
		for _, u := range out.Uploads {
			page.Objects = append(page.Objects, objects.Listed{Key: aws.ToString(u.Key)})
		}
		if aws.ToBool(out.IsTruncated) {
			page.Next = []byte(aws.ToString(out.NextKeyMarker) + "\x00" + aws.ToString(out.NextUploadIdMarker))
		}
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(page)
}
